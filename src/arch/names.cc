#include "arch/names.h"

#include <fmt/format.h>

#include <array>
#include <optional>
#include <utility>

#include "base/error.h"

namespace puna::arch {
namespace {

// A row's name without its layer: "model.layers.3.x" -> "model.layers.", "x".
struct SplitName {
  std::string_view stem;  // "model.layers.", "vision_model.model.layers.", or empty
  std::string_view leaf;
};

SplitName split_name(const ParamRow& row) {
  const std::string_view name = row.name;
  if (row.layer < 0) return {"", name};
  const size_t index = name.find("layers.") + 7;
  return {name.substr(0, index), name.substr(name.find('.', index) + 1)};
}

struct Rename {
  std::string_view ours;
  std::string_view theirs;
  int file_axis = -1;
};

// Outside layers. Split dimensions are those of Meta's column- and row-parallel linears.
constexpr Rename kMetaTop[] = {
    {"model.embed_tokens.weight", "tok_embeddings.weight", 0},
    {"model.norm.weight", "norm.weight"},
    {"lm_head.weight", "output.weight", 0},
    {"vision_model.class_embedding", "vision_embeddings.vision_encoder.class_embedding"},
    {"vision_model.positional_embedding_vlm", "vision_embeddings.vision_encoder.positional_embedding_vlm"},
    {"vision_model.patch_embedding.linear.weight", "vision_embeddings.vision_encoder.conv1._linear.weight", 0},
    {"vision_model.layernorm_pre.weight", "vision_embeddings.vision_encoder.ln_pre.weight"},
    {"vision_model.layernorm_pre.bias", "vision_embeddings.vision_encoder.ln_pre.bias"},
    {"vision_model.layernorm_post.weight", "vision_embeddings.vision_encoder.ln_post.weight"},
    {"vision_model.layernorm_post.bias", "vision_embeddings.vision_encoder.ln_post.bias"},
    {"vision_model.vision_adapter.mlp.fc1.weight", "vision_embeddings.vision_adapter.mlp.c_fc.weight", 0},
    {"vision_model.vision_adapter.mlp.fc2.weight", "vision_embeddings.vision_adapter.mlp.c_proj.weight", 1},
    {"multi_modal_projector.linear_1.weight", "vision_projection.weight", 0},
};

constexpr Rename kMetaVisionLayer[] = {
    {"input_layernorm.weight", "ln_1.weight"},          {"input_layernorm.bias", "ln_1.bias"},
    {"self_attn.q_proj.weight", "attn.wq.weight", 0},   {"self_attn.q_proj.bias", "attn.wq.bias", 0},
    {"self_attn.k_proj.weight", "attn.wk.weight", 0},   {"self_attn.k_proj.bias", "attn.wk.bias", 0},
    {"self_attn.v_proj.weight", "attn.wv.weight", 0},   {"self_attn.v_proj.bias", "attn.wv.bias", 0},
    {"self_attn.o_proj.weight", "attn.wo.weight", 1},   {"self_attn.o_proj.bias", "attn.wo.bias"},
    {"post_attention_layernorm.weight", "ln_2.weight"}, {"post_attention_layernorm.bias", "ln_2.bias"},
    {"mlp.fc1.weight", "mlp.c_fc.weight", 0},           {"mlp.fc1.bias", "mlp.c_fc.bias", 0},
    {"mlp.fc2.weight", "mlp.c_proj.weight", 1},         {"mlp.fc2.bias", "mlp.c_proj.bias"},
};

// Several entries for one row are alternatives, the released checkpoints' name first (llama-models' load hooks).
constexpr Rename kMetaTextLayer[] = {
    {"input_layernorm.weight", "attention.wqkv.layer_norm_weight"},
    {"input_layernorm.weight", "attention_norm.weight"},
    {"self_attn.q_proj.weight", "attention.wq.weight", 0},
    {"self_attn.k_proj.weight", "attention.wk.weight", 0},
    {"self_attn.v_proj.weight", "attention.wv.weight", 0},
    {"self_attn.o_proj.weight", "attention.wo.weight", 1},
    {"post_attention_layernorm.weight", "feed_forward.mlp.layer_norm_weight"},
    {"post_attention_layernorm.weight", "feed_forward.norm.weight"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"feed_forward.gate_proj.weight", "feed_forward.w1.weight", 0},
    {"feed_forward.up_proj.weight", "feed_forward.w3.weight", 0},
    {"feed_forward.down_proj.weight", "feed_forward.mlp.fc2_weight", 1},
    {"feed_forward.down_proj.weight", "feed_forward.w2.weight", 1},
    {"feed_forward.shared_expert.gate_proj.weight", "feed_forward.w_in_shared_FD.weight", 0},
    {"feed_forward.shared_expert.gate_proj.weight", "feed_forward.shared_expert.w1.weight", 0},
    {"feed_forward.shared_expert.up_proj.weight", "feed_forward.w_swiglu_FD.weight", 0},
    {"feed_forward.shared_expert.up_proj.weight", "feed_forward.shared_expert.w3.weight", 0},
    {"feed_forward.shared_expert.down_proj.weight", "feed_forward.w_out_shared_DF.weight", 1},
    {"feed_forward.shared_expert.down_proj.weight", "feed_forward.shared_expert.w2.weight", 1},
};

constexpr Rename kGgufTop[] = {
    {"model.embed_tokens.weight", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
};

constexpr Rename kGgufTextLayer[] = {
    {"input_layernorm.weight", "attn_norm.weight"},
    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.k_proj.weight", "attn_k.weight"},
    {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"feed_forward.gate_proj.weight", "ffn_gate.weight"},
    {"feed_forward.up_proj.weight", "ffn_up.weight"},
    {"feed_forward.down_proj.weight", "ffn_down.weight"},
    {"feed_forward.router.weight", "ffn_gate_inp.weight"},
    {"feed_forward.shared_expert.gate_proj.weight", "ffn_gate_shexp.weight"},
    {"feed_forward.shared_expert.up_proj.weight", "ffn_up_shexp.weight"},
    {"feed_forward.shared_expert.down_proj.weight", "ffn_down_shexp.weight"},
};

template <size_t N>
void append_renamed(const Rename (&table)[N], std::string_view leaf, const std::string& prefix, const ParamRow& row,
                    std::vector<StoredForm>& forms) {
  for (const Rename& rename : table)
    if (rename.ours == leaf)
      forms.push_back(
          {{.name = prefix + std::string(rename.theirs), .shape = row.shape, .file_axis = rename.file_axis}});
}

std::vector<int64_t> swapped(std::vector<int64_t> shape) {
  std::swap(shape[shape.size() - 2], shape[shape.size() - 1]);
  return shape;
}

// Half of gate_up_proj's last dimension.
std::vector<int64_t> half_shape(const ParamRow& row) { return {row.shape[0], row.shape[1], row.shape[2] / 2}; }

// Fused tensors of llama-models' load hooks: [q; k; v] rows, and [gate; up] rows of a dense FFN.
std::optional<StoredPart> meta_fused_slice(const Llama4Config& config, std::string_view leaf, const std::string& prefix,
                                           const ParamRow& row) {
  const int64_t H = config.text.num_attention_heads, G = config.text.num_key_value_heads;
  StoredPart part{.name = prefix + "attention.wqkv.weight", .shape = row.shape, .file_axis = 0};
  const auto slice = [&](int64_t begin, int64_t end, int64_t total) {
    part.slice_begin = begin, part.slice_end = end, part.slice_total = total;
    return part;
  };
  if (leaf == "self_attn.q_proj.weight") return slice(0, H, H + 2 * G);
  if (leaf == "self_attn.k_proj.weight") return slice(H, H + G, H + 2 * G);
  if (leaf == "self_attn.v_proj.weight") return slice(H + G, H + 2 * G, H + 2 * G);
  part.name = prefix + "feed_forward.mlp.fc1_weight";
  if (leaf == "feed_forward.gate_proj.weight") return slice(0, 1, 2);
  if (leaf == "feed_forward.up_proj.weight") return slice(1, 2, 2);
  return std::nullopt;
}

std::vector<StoredForm> meta_text_layer(const Llama4Config& config, std::string_view leaf, const ParamRow& row) {
  const std::string prefix = fmt::format("layers.{}.", row.layer);
  std::vector<StoredForm> forms;
  if (leaf == "feed_forward.router.weight")
    return {{{.name = prefix + "feed_forward.router_DE", .shape = swapped(row.shape), .transposed = true}}};
  const std::string experts = prefix + "feed_forward.experts.";
  if (leaf == "feed_forward.experts.gate_up_proj") {
    for (const auto& [gate, up] : {std::pair("moe_w_in_eD_F", "moe_w_swiglu_eD_F"), std::pair("w1", "w3")}) {
      StoredForm form;
      for (const char* half : {gate, up})
        form.push_back({.name = experts + half, .shape = half_shape(row), .file_axis = 2, .merged_experts = true});
      forms.push_back(std::move(form));
    }
    return forms;
  }
  if (leaf == "feed_forward.experts.down_proj") {
    for (const char* name : {"moe_w_out_eF_D", "w2"})
      forms.push_back({{.name = experts + name, .shape = row.shape, .file_axis = 1, .merged_experts = true}});
    return forms;
  }
  if (auto part = meta_fused_slice(config, leaf, prefix, row)) forms.push_back({std::move(*part)});
  append_renamed(kMetaTextLayer, leaf, prefix, row, forms);
  return forms;
}

std::vector<StoredForm> meta_forms(const Llama4Config& config, const ParamRow& row) {
  const auto [stem, leaf] = split_name(row);
  if (stem == "model.layers.") return meta_text_layer(config, leaf, row);
  std::vector<StoredForm> forms;
  if (row.layer >= 0)
    append_renamed(kMetaVisionLayer, leaf,
                   fmt::format("vision_embeddings.vision_encoder.transformer.resblocks.{}.", row.layer), row, forms);
  else
    append_renamed(kMetaTop, leaf, "", row, forms);
  return forms;
}

std::vector<StoredForm> gguf_forms(const ParamRow& row) {
  const auto [stem, leaf] = split_name(row);
  std::vector<StoredForm> forms;
  const std::string prefix = fmt::format("blk.{}.", row.layer);
  if (row.layer < 0) {
    append_renamed(kGgufTop, leaf, "", row, forms);
  } else if (stem != "model.layers.") {
    return {};
  } else if (leaf == "feed_forward.experts.gate_up_proj") {
    StoredForm form;
    for (const char* name : {"ffn_gate_exps.weight", "ffn_up_exps.weight"})
      form.push_back({.name = prefix + name, .shape = swapped(half_shape(row)), .transposed = true});
    forms.push_back(std::move(form));
  } else if (leaf == "feed_forward.experts.down_proj") {
    forms.push_back({{.name = prefix + "ffn_down_exps.weight", .shape = swapped(row.shape), .transposed = true}});
  } else {
    append_renamed(kGgufTextLayer, leaf, prefix, row, forms);
  }
  return forms;
}

// experts.{e}.gate_proj.weight [F, D] and so on: ordinary linears, [out, in].
std::vector<StoredForm> hf_unfused_forms(const Llama4Config& config, const ParamRow& row) {
  const std::string name = hf_name(config, row);
  if (row.kind != ParamKind::kRoutedExperts) return {{{.name = name, .shape = row.shape}}};
  const std::string module = name.substr(0, name.rfind('.'));
  const bool down = name.ends_with("down_proj");
  const std::vector<std::string_view> linears =
      down ? std::vector<std::string_view>{"down_proj"} : std::vector<std::string_view>{"gate_proj", "up_proj"};
  const int64_t in = row.shape[1], out = row.shape[2] / static_cast<int64_t>(linears.size());
  StoredForm form;
  for (int e = 0; e < row.shape[0]; ++e)
    for (std::string_view linear : linears)
      form.push_back({.name = fmt::format("{}.{}.{}.weight", module, e, linear),
                      .shape = {out, in},
                      .transposed = true,
                      .expert = e});
  return {form};
}

}  // namespace

std::vector<StoredForm> stored_forms(const Llama4Config& config, const ParamRow& row, NameFormat format) {
  switch (format) {
    case NameFormat::kHuggingFace:
      return {{{.name = hf_name(config, row), .shape = row.shape}}};
    case NameFormat::kHuggingFaceUnfused:
      return hf_unfused_forms(config, row);
    case NameFormat::kMeta:
      return meta_forms(config, row);
    case NameFormat::kGguf:
      return gguf_forms(row);
  }
  throw InternalError("unknown name format");
}

bool is_known_extra(std::string_view name, NameFormat format) {
  switch (format) {
    case NameFormat::kHuggingFace:
    case NameFormat::kHuggingFaceUnfused:
      return name.ends_with(".rotary_emb.inv_freq") || name.ends_with("rotary_embedding.freqs_ci");
    case NameFormat::kMeta:
      return name == "rope.freqs" || name.ends_with("._extra_state") || name.ends_with(".running_gate_stats_3E") ||
             name.ends_with(".global_gate_stats_3E") || name.ends_with(".expert_activation_DE");
    case NameFormat::kGguf:
      return false;
  }
  return false;
}

}  // namespace puna::arch
