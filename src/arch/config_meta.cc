// Meta's params.json (llama-models, models/llama4/args.py), as in the released consolidated checkpoints.
#include <cmath>

#include "arch/config.h"
#include "arch/fields.h"
#include "arch/resolve.h"

namespace puna::arch {
namespace {

// Python's int() of a float: towards zero. The bound keeps the conversion defined.
int64_t truncated(const Fields& f, std::string_view key, double value) {
  if (!(value >= 0 && value < 1e15)) f.refuse(key, "it gives a feed-forward width out of range");
  return static_cast<int64_t>(value);
}

int64_t rounded_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

int64_t read_multiple_of(const Fields& f) {
  const int64_t multiple = f.integer("multiple_of", 256);
  if (multiple < 1 || multiple > 1 << 20) f.refuse("multiple_of", "expected 1 to 1048576");
  return multiple;
}

// TransformerBlock of model.py: int(4 dim), two thirds, times the multiplier, rounded up.
int64_t dense_width(const Fields& f, int64_t dim) {
  int64_t width = truncated(f, "dim", 2.0 * static_cast<double>(4 * dim) / 3.0);
  if (f.has("ffn_dim_multiplier"))
    width = truncated(f, "ffn_dim_multiplier", f.number("ffn_dim_multiplier") * static_cast<double>(width));
  return rounded_up(width, read_multiple_of(f));
}

// MoE of moe.py: the same from int(ffn_exp dim), and shared between the top-k and the shared expert if auto_scale_F.
int64_t expert_width(const Fields& f, const Fields& moe, int64_t dim) {
  const int64_t hidden = truncated(f, "ffn_exp", f.number("ffn_exp") * static_cast<double>(dim));
  int64_t width = truncated(f, "ffn_exp", 2.0 * static_cast<double>(hidden) / 3.0);
  width = truncated(f, "ffn_dim_multiplier", f.number("ffn_dim_multiplier") * static_cast<double>(width));
  if (moe.boolean("auto_scale_F", true)) {
    const double share = moe.number("capacity_factor", 1.0) + 1;
    if (!(share >= 1)) moe.refuse("capacity_factor", "expected 0 or more");
    width = truncated(f, "ffn_exp", static_cast<double>(width) / share);
  }
  return rounded_up(width, read_multiple_of(f));
}

void read_attention(const Fields& f, TextConfig& t) {
  t.num_attention_heads = f.integer("n_heads");
  t.num_key_value_heads = f.integer("n_kv_heads", t.num_attention_heads);
  if (t.num_attention_heads < 1 || t.hidden_size % t.num_attention_heads != 0)
    f.refuse("n_heads", fmt::format("expected a divisor of dim ({})", t.hidden_size));
  t.head_dim = t.hidden_size / t.num_attention_heads;
  if (f.integer("head_dim", t.head_dim) != t.head_dim)
    f.refuse("head_dim", fmt::format("expected dim / n_heads ({}), which Meta's code uses", t.head_dim));
  t.use_qk_norm = f.boolean("use_qk_norm", false);
  t.attn_temperature_tuning = f.boolean("attn_temperature_tuning", false);
  t.floor_scale = f.number("floor_scale", 8192);
  t.attn_scale = f.number("attn_scale", 0.1);
  t.attention_chunk_size = f.integer("attention_chunk_size", 0);
}

void read_rope(const Fields& f, Llama4Config& config) {
  TextConfig& t = config.text;
  t.rope_theta = f.number("rope_theta", 500000);
  if (f.boolean("use_scaled_rope", false))
    t.rope_scaling = RopeScaling{.factor = f.number("rope_scaling_factor", 16),
                                 .low_freq_factor = 1,
                                 .high_freq_factor = f.number("rope_high_freq_factor", 1),
                                 .original_max_position_embeddings = 8192};
  // None of its layers is without rope: an interval past the last layer says so.
  t.no_rope_layer_interval = f.integer("nope_layer_interval", t.num_hidden_layers + 1);
  if (t.no_rope_layer_interval < 1) f.refuse("nope_layer_interval", "expected 1 or more, or null");
  t.uses_rope = default_uses_rope(t.num_hidden_layers, t.no_rope_layer_interval);
}

void read_feed_forward(const Fields& f, TextConfig& t) {
  t.intermediate_size_mlp = dense_width(f, t.hidden_size);
  const auto moe = f.object("moe_args");
  if (!moe) return;
  t.num_local_experts = moe->integer("num_experts");
  t.num_experts_per_tok = moe->integer("top_k", 1);
  t.interleave_moe_layer_step = moe->integer("interleave_moe_layer_step", 1);
  if (t.interleave_moe_layer_step < 1) moe->refuse("interleave_moe_layer_step", "expected 1 or more");
  t.intermediate_size = expert_width(f, *moe, t.hidden_size);
  t.moe_layers = default_moe_layers(t.num_hidden_layers, t.interleave_moe_layer_step);
}

int64_t read_square(const Fields& vision, std::string_view key) {
  const auto size = vision.object(key);
  if (!size) vision.refuse(key, "expected {\"height\": n, \"width\": n}");
  const int64_t height = size->integer("height");
  if (size->integer("width") != height) vision.refuse(key, "expected a square");
  return height;
}

void read_vision(const Fields& f, Llama4Config& config) {
  VisionConfig v;
  v.hidden_size = f.integer("dim");
  v.num_hidden_layers = f.integer("n_layers");
  v.num_attention_heads = f.integer("n_heads");
  v.intermediate_size = truncated(f, "mlp_ratio", f.number("mlp_ratio") * static_cast<double>(v.hidden_size));
  v.image_size = read_square(f, "image_size");
  v.patch_size = read_square(f, "patch_size");
  v.vision_output_dim = f.integer("output_dim");
  v.pixel_shuffle_ratio = f.number("pixel_shuffle_ratio");
  config.vision = v;
}

}  // namespace

Llama4Config config_from_meta(const Json& json, std::string_view where) {
  const Fields f(json, where);
  if (f.has("quantization_args") || f.has("lora_args"))
    fail(where,
         "Meta's own quantised checkpoints are not supported; use the BF16 one, or a quantised one in another "
         "format");
  Llama4Config config;
  TextConfig& t = config.text;
  t.hidden_size = f.integer("dim");
  if (t.hidden_size < 1 || t.hidden_size > 1 << 20) f.refuse("dim", "expected 1 to 1048576");
  t.num_hidden_layers = f.integer("n_layers");
  check_num_layers(t.num_hidden_layers, where);
  t.vocab_size = f.integer("vocab_size");
  t.rms_norm_eps = f.number("norm_eps", 1e-5);
  read_attention(f, t);
  read_rope(f, config);
  read_feed_forward(f, t);
  // max_seq_len is what the program allocated, not what the model was trained for.
  t.max_position_embeddings = t.rope_scaling ? 10485760 : 1048576;
  config.notes.push_back(fmt::format(
      "max_position_embeddings is {}: params.json does not tell it (Scout's with scaled rope, else Maverick's)",
      t.max_position_embeddings));
  if (const auto vision = f.object("vision_args")) read_vision(*vision, config);
  drop_absent_meta_tokens(config);
  note_absent_image_tokens(config);
  validate(config, where);
  return config;
}

}  // namespace puna::arch
