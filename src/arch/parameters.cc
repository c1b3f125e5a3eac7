#include "arch/parameters.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "arch/layer_plan.h"

namespace puna::arch {
namespace {

constexpr std::string_view kTextPrefix = "language_model.";

class TableBuilder {
 public:
  explicit TableBuilder(const Llama4Config& config) : config_(config) {}

  std::vector<ParamRow> build() {
    const TextConfig& t = config_.text;
    add("model.embed_tokens.weight", {t.vocab_size, t.hidden_size}, ParamKind::kEmbedding, ShardAxis::kRows);
    for (const LayerPlan& plan : layer_plan(t)) add_text_layer(plan);
    prefix_.clear(), layer_ = -1;
    add("model.norm.weight", {t.hidden_size}, ParamKind::kNorm, ShardAxis::kNone);
    add("lm_head.weight", {t.vocab_size, t.hidden_size}, ParamKind::kHead, ShardAxis::kRows);
    if (config_.vision) add_vision(*config_.vision);
    return std::move(rows_);
  }

 private:
  void add(std::string_view name, std::vector<int64_t> shape, ParamKind kind, ShardAxis axis,
           bool quantisable = false) {
    rows_.push_back({prefix_ + std::string(name), std::move(shape), kind, layer_, axis, quantisable});
  }

  void add_text_layer(const LayerPlan& plan) {
    const TextConfig& t = config_.text;
    const int64_t D = t.hidden_size, q = t.num_attention_heads * t.head_dim, kv = t.num_key_value_heads * t.head_dim;
    layer_ = plan.index;
    prefix_ = fmt::format("model.layers.{}.", layer_);
    add("input_layernorm.weight", {D}, ParamKind::kNorm, ShardAxis::kNone);
    add("self_attn.q_proj.weight", {q, D}, ParamKind::kAttention, ShardAxis::kRows, true);
    add("self_attn.k_proj.weight", {kv, D}, ParamKind::kAttention, ShardAxis::kRows, true);
    add("self_attn.v_proj.weight", {kv, D}, ParamKind::kAttention, ShardAxis::kRows, true);
    add("self_attn.o_proj.weight", {D, q}, ParamKind::kAttention, ShardAxis::kColumns, true);
    add("post_attention_layernorm.weight", {D}, ParamKind::kNorm, ShardAxis::kNone);
    if (plan.moe) {
      const int64_t E = t.num_local_experts, F = t.intermediate_size;
      add("feed_forward.router.weight", {E, D}, ParamKind::kRouter, ShardAxis::kNone);
      add("feed_forward.experts.gate_up_proj", {E, D, 2 * F}, ParamKind::kRoutedExperts, ShardAxis::kExperts, true);
      add("feed_forward.experts.down_proj", {E, F, D}, ParamKind::kRoutedExperts, ShardAxis::kExperts, true);
      add_ffn("feed_forward.shared_expert.", F, ParamKind::kSharedExpert);
    } else {
      add_ffn("feed_forward.", t.intermediate_size_mlp, ParamKind::kDenseFfn);
    }
  }

  void add_ffn(const std::string& module, int64_t F, ParamKind kind) {
    const int64_t D = config_.text.hidden_size;
    add(module + "gate_proj.weight", {F, D}, kind, ShardAxis::kRows, true);
    add(module + "up_proj.weight", {F, D}, kind, ShardAxis::kRows, true);
    add(module + "down_proj.weight", {D, F}, kind, ShardAxis::kColumns, true);
  }

  void add_vision(const VisionConfig& v) {
    const int64_t W = v.hidden_size, grid = v.grid(), Po = v.vision_output_dim;
    prefix_ = "vision_model.";
    add("class_embedding", {W}, ParamKind::kVision, ShardAxis::kNone);
    add("positional_embedding_vlm", {grid * grid + 1, W}, ParamKind::kVision, ShardAxis::kNone);
    add("patch_embedding.linear.weight", {W, v.num_channels * v.patch_size * v.patch_size}, ParamKind::kVision,
        ShardAxis::kRows);
    add_layer_norm("layernorm_pre", W);
    for (int i = 0; i < v.num_hidden_layers; ++i) add_vision_layer(i, v);
    prefix_ = "vision_model.", layer_ = -1;
    add_layer_norm("layernorm_post", W);
    add("vision_adapter.mlp.fc1.weight", {Po, v.adapter_input_size()}, ParamKind::kVision, ShardAxis::kRows);
    add("vision_adapter.mlp.fc2.weight", {Po, Po}, ParamKind::kVision, ShardAxis::kColumns);
    prefix_.clear();
    add("multi_modal_projector.linear_1.weight", {config_.text.hidden_size, Po}, ParamKind::kProjector,
        ShardAxis::kRows);
  }

  void add_vision_layer(int index, const VisionConfig& v) {
    const int64_t W = v.hidden_size, F = v.intermediate_size;
    layer_ = index;
    prefix_ = fmt::format("vision_model.model.layers.{}.", index);
    add_layer_norm("input_layernorm", W);
    for (const char* module : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"})
      add_biased(module, W, W, ShardAxis::kRows);
    add_biased("self_attn.o_proj", W, W, ShardAxis::kColumns);
    add_layer_norm("post_attention_layernorm", W);
    add_biased("mlp.fc1", F, W, ShardAxis::kRows);
    add_biased("mlp.fc2", W, F, ShardAxis::kColumns);
  }

  void add_layer_norm(const std::string& module, int64_t width) {
    add(module + ".weight", {width}, ParamKind::kVision, ShardAxis::kNone);
    add(module + ".bias", {width}, ParamKind::kVision, ShardAxis::kNone);
  }

  // The bias of a column-split linear is added once, after the sum over ranks: it is not split.
  void add_biased(const std::string& module, int64_t out, int64_t in, ShardAxis axis) {
    add(module + ".weight", {out, in}, ParamKind::kVision, axis);
    add(module + ".bias", {out}, ParamKind::kVision, axis == ShardAxis::kRows ? axis : ShardAxis::kNone);
  }

  const Llama4Config& config_;
  std::vector<ParamRow> rows_;
  std::string prefix_;
  int layer_ = -1;
};

// Every name of the table, layer indices written as '#': from a model that has both kinds of layer and vision.
const std::vector<std::string>& name_patterns() {
  static const std::vector<std::string> patterns = [] {
    Llama4Config c;
    c.text.num_hidden_layers = 2;
    c.text.uses_rope = {1, 1};
    c.text.moe_layers = {1};
    c.vision = VisionConfig{.num_hidden_layers = 1};
    std::vector<std::string> out;
    for (const ParamRow& row : parameter_table(c)) {
      std::string name = row.name;
      if (row.layer >= 0) name[name.find("layers.") + 7] = '#';
      out.push_back(std::move(name));
    }
    std::ranges::sort(out);
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
  }();
  return patterns;
}

bool is_text(std::string_view name) { return name.starts_with("model.") || name.starts_with("lm_head."); }

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

std::vector<ParamRow> parameter_table(const Llama4Config& config) { return TableBuilder(config).build(); }

std::string hf_name(const Llama4Config& config, const ParamRow& row) {
  return config.vision && is_text(row.name) ? std::string(kTextPrefix) + row.name : row.name;
}

std::string from_hf_name(std::string_view hf) {
  std::string_view name = hf;
  if (name.starts_with(kTextPrefix)) {
    name.remove_prefix(kTextPrefix.size());
    if (!is_text(name)) return "";
  }
  std::string pattern(name);
  if (const size_t at = pattern.find("layers."); at != std::string::npos) {
    const size_t begin = at + 7;
    size_t end = begin;
    while (end < pattern.size() && is_digit(pattern[end])) ++end;
    const bool canonical = end > begin && end - begin <= 9 && (pattern[begin] != '0' || end == begin + 1);
    if (!canonical) return "";
    pattern.replace(begin, end - begin, "#");
  }
  return std::ranges::binary_search(name_patterns(), pattern) ? std::string(name) : "";
}

}  // namespace puna::arch
