#include "arch/config.h"

#include <algorithm>
#include <cmath>

#include "arch/layer_plan.h"
#include "arch/parameters.h"
#include "arch/resolve.h"
#include "base/checked.h"
#include "base/error.h"

namespace puna::arch {
namespace {

struct Range {
  std::string_view key;
  int64_t value;
  int64_t least;
  int64_t most;
};

void check_ranges(std::string_view where, std::string_view part, const std::vector<Range>& ranges) {
  for (const Range& r : ranges)
    if (r.value < r.least || r.value > r.most)
      fail(where, "{} {} is {}, expected {} to {}; correct the config", part, r.key, r.value, r.least, r.most);
}

// `least` itself is refused.
void check_above(std::string_view where, std::string_view key, double value, double least, double most) {
  if (!(value > least && value <= most))
    fail(where, "{} is {}, expected a number above {} and at most {}; correct the config", key, value, least, most);
}

void check_rope(const TextConfig& t, std::string_view where) {
  check_above(where, "rope_theta", t.rope_theta, 0, 1e18);
  if (t.rope_scaling) {
    const RopeScaling& s = *t.rope_scaling;
    check_above(where, "rope_scaling factor", s.factor, 0, 1e9);
    check_above(where, "rope low_freq_factor", s.low_freq_factor, 0, 1e9);
    check_above(where, "rope high_freq_factor", s.high_freq_factor, 0, 1e9);
    check_ranges(where, "rope",
                 {{"original_max_position_embeddings", s.original_max_position_embeddings, 1, int64_t{1} << 40}});
    if (s.high_freq_factor < s.low_freq_factor)
      fail(where, "rope high_freq_factor {} is below low_freq_factor {}; swap them", s.high_freq_factor,
           s.low_freq_factor);
  }
  if (!t.rope_factors.empty() && static_cast<int64_t>(t.rope_factors.size()) != t.head_dim / 2)
    fail(where, "there are {} rope factors, head_dim {} needs {}", t.rope_factors.size(), t.head_dim, t.head_dim / 2);
  for (double factor : t.rope_factors) check_above(where, "a rope factor", factor, 0, 1e9);
}

void check_layers(const TextConfig& t, std::string_view where) {
  const auto check_flags = [&](std::string_view key, const std::vector<int>& flags) {
    if (static_cast<int64_t>(flags.size()) != t.num_hidden_layers)
      fail(where, "{} has {} entries, num_hidden_layers is {}; give one per layer", key, flags.size(),
           t.num_hidden_layers);
    for (int flag : flags)
      if (flag != 0 && flag != 1) fail(where, "{} has an entry {}, expected 0 or 1", key, flag);
  };
  check_flags("no_rope_layers", t.uses_rope);
  if (!t.chunked_layers.empty()) check_flags("layer_types", t.chunked_layers);
  int64_t previous = -1;
  for (int64_t layer : t.moe_layers) {
    if (layer <= previous || layer >= t.num_hidden_layers)
      fail(where, "moe_layers has {} after {}, expected ascending layers below {}", layer, previous,
           t.num_hidden_layers);
    previous = layer;
  }
}

void check_text(const TextConfig& t, std::string_view where) {
  check_num_layers(t.num_hidden_layers, where);
  check_layers(t, where);
  const bool has_moe = !t.moe_layers.empty();
  const bool has_dense = static_cast<int64_t>(t.moe_layers.size()) < t.num_hidden_layers;
  check_ranges(
      where, "text",
      {{"vocab_size", t.vocab_size, 1, int64_t{1} << 28},
       {"hidden_size", t.hidden_size, 1, int64_t{1} << 20},
       {"num_attention_heads", t.num_attention_heads, 1, 1 << 16},
       {"num_key_value_heads", t.num_key_value_heads, 1, t.num_attention_heads},
       {"head_dim", t.head_dim, 2, 1 << 16},
       {"intermediate_size", t.intermediate_size, has_moe ? 1 : 0, int64_t{1} << 22},
       {"intermediate_size_mlp", t.intermediate_size_mlp, has_dense ? 1 : 0, int64_t{1} << 22},
       {"num_local_experts", t.num_local_experts, has_moe ? 1 : 0, 1 << 16},
       {"num_experts_per_tok", t.num_experts_per_tok, has_moe ? 1 : 0, has_moe ? t.num_local_experts : 1 << 16},
       {"interleave_moe_layer_step", t.interleave_moe_layer_step, 1, 1 << 16},
       {"no_rope_layer_interval", t.no_rope_layer_interval, 1, 1 << 16},
       {"attention_chunk_size", t.attention_chunk_size, 0, int64_t{1} << 40},
       {"max_position_embeddings", t.max_position_embeddings, 1, int64_t{1} << 40}});
  if (t.num_attention_heads % t.num_key_value_heads != 0)
    fail(where, "num_attention_heads {} is no multiple of num_key_value_heads {}", t.num_attention_heads,
         t.num_key_value_heads);
  if (t.head_dim % 2 != 0) fail(where, "head_dim is {}, expected an even number (rope turns pairs)", t.head_dim);
  check_above(where, "rms_norm_eps", t.rms_norm_eps, 0, 1);
  check_above(where, "floor_scale", t.floor_scale, 0, 1e15);
  check_above(where, "attn_scale", t.attn_scale, -1e6, 1e6);
  check_rope(t, where);
}

void check_vision(const VisionConfig& v, std::string_view where) {
  check_ranges(where, "vision",
               {{"hidden_size", v.hidden_size, 1, int64_t{1} << 20},
                {"num_hidden_layers", v.num_hidden_layers, 1, kMaxLayers},
                {"num_attention_heads", v.num_attention_heads, 1, 1 << 16},
                {"intermediate_size", v.intermediate_size, 1, int64_t{1} << 26},
                {"image_size", v.image_size, 1, 1 << 14},
                {"patch_size", v.patch_size, 1, 1 << 12},
                {"num_channels", v.num_channels, 3, 3},
                {"vision_output_dim", v.vision_output_dim, 1, int64_t{1} << 20}});
  if (v.hidden_size % v.num_attention_heads != 0 || v.hidden_size / v.num_attention_heads % 4 != 0)
    fail(where,
         "vision hidden_size {} over num_attention_heads {} must give a whole head width, a multiple of 4 (2D rope)",
         v.hidden_size, v.num_attention_heads);
  check_above(where, "vision pixel_shuffle_ratio", v.pixel_shuffle_ratio, 1.0 / 64, 1);
  check_above(where, "vision rope_theta", v.rope_theta, 0, 1e18);
  check_above(where, "vision norm_eps", v.norm_eps, 0, 1);
  const int64_t side = v.shuffle_side();
  if (std::abs(1.0 / v.pixel_shuffle_ratio - static_cast<double>(side)) > 1e-6)
    fail(where, "vision pixel_shuffle_ratio is {}, expected 1 over a whole number", v.pixel_shuffle_ratio);
  if (v.image_size % v.patch_size != 0 || v.grid() % side != 0)
    fail(where, "vision image_size {} is no multiple of patch_size {} times {} (the pixel shuffle's square)",
         v.image_size, v.patch_size, side);
  if (v.intermediate_size != v.adapter_input_size())
    fail(where,
         "vision intermediate_size is {}, expected hidden_size / pixel_shuffle_ratio^2 = {} (the adapter's input)",
         v.intermediate_size, v.adapter_input_size());
}

void check_tokens(const Llama4Config& c, std::string_view where) {
  const int64_t last = c.text.vocab_size - 1;
  check_ranges(where, "token id",
               {{"bos_token_id", c.bos_token_id, -1, last},
                {"pad_token_id", c.pad_token_id, -1, last},
                {"image_token_index", c.image_token_id, -1, last},
                {"boi_token_index", c.boi_token_id, -1, last},
                {"eoi_token_index", c.eoi_token_id, -1, last}});
  for (int64_t id : c.eos_token_ids) check_ranges(where, "token id", {{"eos_token_id", id, 0, last}});
}

// Limits on each width alone still allow a table too large to address.
void check_total(const Llama4Config& c, std::string_view where) {
  int64_t total = 0;
  for (const ParamRow& row : parameter_table(c)) {
    const auto elements = checked_numel(row.shape);
    const auto sum = elements ? checked_add(total, *elements) : std::nullopt;
    if (!sum || *sum > int64_t{1} << 58)
      fail(where, "the model would have more than 2^58 parameters (at {}); correct the sizes in the config", row.name);
    total = *sum;
  }
}

}  // namespace

int64_t VisionConfig::shuffle_side() const { return std::llround(1.0 / pixel_shuffle_ratio); }

int64_t VisionConfig::tokens_per_tile() const {
  const int64_t side = grid() / shuffle_side();
  return side * side;
}

void check_num_layers(int64_t num_layers, std::string_view where) {
  if (num_layers < 1 || num_layers > kMaxLayers)
    fail(where, "num_hidden_layers is {}, expected 1 to {}; correct the config", num_layers, kMaxLayers);
}

std::vector<int> default_uses_rope(int64_t num_layers, int64_t interval) {
  std::vector<int> out;
  for (int64_t i = 0; i < num_layers; ++i) out.push_back((i + 1) % interval != 0);
  return out;
}

std::vector<int64_t> default_moe_layers(int64_t num_layers, int64_t step) {
  std::vector<int64_t> out;
  for (int64_t i = step - 1; i < num_layers; i += step) out.push_back(i);
  return out;
}

void drop_absent_meta_tokens(Llama4Config& config) {
  const auto absent = [&](int64_t id) { return id >= config.text.vocab_size; };
  for (int64_t* id :
       {&config.bos_token_id, &config.pad_token_id, &config.image_token_id, &config.boi_token_id, &config.eoi_token_id})
    if (absent(*id)) *id = -1;
  std::erase_if(config.eos_token_ids, absent);
  if (!config.vision) config.image_token_id = config.boi_token_id = config.eoi_token_id = -1;
}

void note_absent_image_tokens(Llama4Config& config) {
  if (config.vision && std::min({config.image_token_id, config.boi_token_id, config.eoi_token_id}) < 0)
    config.notes.push_back(
        fmt::format("no ids are known for all of the image tokens in a vocabulary of {}: images cannot be used",
                    config.text.vocab_size));
}

void validate(const Llama4Config& config, std::string_view where) {
  check_text(config.text, where);
  if (config.vision) check_vision(*config.vision, where);
  check_tokens(config, where);
  check_total(config, where);
}

}  // namespace puna::arch
