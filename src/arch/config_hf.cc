// Hugging Face config.json, both generations: "legacy" (transformers 4.51, all released models) and v5.
#include <algorithm>
#include <cmath>

#include "arch/config.h"
#include "arch/fields.h"
#include "arch/layer_plan.h"
#include "arch/resolve.h"
#include "arch/rope_factors.h"

namespace puna::arch {
namespace {

constexpr std::string_view kRouterActivation = "puna_router_activation";
constexpr std::string_view kRouterScoreOn = "puna_router_score_on";

// What the formulas of SPEC have no term for: refused, because ignoring it would give wrong answers.
void refuse_unsupported_text(const Fields& f) {
  if (f.boolean("attention_bias", false)) f.refuse("attention_bias", "biases in attention are not supported");
  if (f.boolean("tie_word_embeddings", false))
    f.refuse("tie_word_embeddings", "tied embeddings are not supported; save the model with its lm_head");
  if (f.string("hidden_act", "silu") != "silu") f.refuse("hidden_act", "only \"silu\" is supported");
}

void refuse_unsupported_vision(const Fields& f) {
  if (f.string("hidden_act", "gelu") != "gelu") f.refuse("hidden_act", "only \"gelu\" is supported");
  if (f.boolean("multi_modal_projector_bias", false))
    f.refuse("multi_modal_projector_bias", "a projector with bias is not supported");
  if (f.string("vision_feature_select_strategy", "default") != "default")
    f.refuse("vision_feature_select_strategy", "only \"default\" is supported");
  if (f.integer("vision_feature_layer", -1) != -1)
    f.refuse("vision_feature_layer", "only -1 (the last layer) is supported");
}

std::optional<RopeScaling> read_rope_scaling(const Fields& f, Llama4Config& config) {
  const std::string type = f.string("rope_type", f.string("type", f.has("factor") ? "" : "default"));
  if (type == "default") return std::nullopt;
  if (type != "llama3") f.refuse("rope_type", "only \"llama3\" and \"default\" are supported");
  const RopeScaling s{.factor = f.number("factor"),
                      .low_freq_factor = f.number("low_freq_factor"),
                      .high_freq_factor = f.number("high_freq_factor"),
                      .original_max_position_embeddings = f.integer("original_max_position_embeddings")};
  if (s.factor == 8 && s.low_freq_factor == 1 && s.high_freq_factor == 4)
    config.notes.push_back(
        "rope scaling has factor 8 and high_freq_factor 4, as early conversions of Llama 4 Scout had by mistake; the "
        "released values are 16 and 1 (used here: the file's)");
  return s;
}

void read_rope(const Fields& f, Llama4Config& config) {
  // As in transformers, a legacy rope_scaling wins over rope_parameters.
  const auto parameters = f.object("rope_parameters");
  const auto scaling = f.object("rope_scaling");
  const double legacy_theta = f.number("rope_theta", config.text.rope_theta);
  config.text.rope_theta = parameters ? parameters->number("rope_theta", legacy_theta) : legacy_theta;
  if (scaling)
    config.text.rope_scaling = read_rope_scaling(*scaling, config);
  else if (parameters)
    config.text.rope_scaling = read_rope_scaling(*parameters, config);
}

void read_layers(const Fields& f, TextConfig& t) {
  check_num_layers(t.num_hidden_layers, f.where());
  const auto num_layers = static_cast<size_t>(t.num_hidden_layers);
  t.no_rope_layer_interval = f.integer("no_rope_layer_interval", 4);
  if (t.no_rope_layer_interval < 1) f.refuse("no_rope_layer_interval", "expected 1 or more");
  t.interleave_moe_layer_step = f.integer("interleave_moe_layer_step", 1);
  if (t.interleave_moe_layer_step < 1) f.refuse("interleave_moe_layer_step", "expected 1 or more");

  const auto rope = f.integers("no_rope_layers", kMaxLayers);
  if (rope && !rope->empty()) {
    if (rope->size() < num_layers)
      f.refuse("no_rope_layers", fmt::format("expected an entry for each of the {} layers, or none", num_layers));
    for (size_t i = 0; i < num_layers; ++i) {
      if ((*rope)[i] != 0 && (*rope)[i] != 1) f.refuse("no_rope_layers", "expected entries 0 or 1");
      t.uses_rope.push_back(static_cast<int>((*rope)[i]));
    }
  } else {
    t.uses_rope = default_uses_rope(t.num_hidden_layers, t.no_rope_layer_interval);
  }

  if (auto moe = f.integers("moe_layers", kMaxLayers)) {
    std::ranges::sort(*moe);
    moe->erase(std::unique(moe->begin(), moe->end()), moe->end());
    t.moe_layers = std::move(*moe);
  } else {
    t.moe_layers = default_moe_layers(t.num_hidden_layers, t.interleave_moe_layer_step);
  }

  if (const auto types = f.strings("layer_types", kMaxLayers)) {
    if (types->size() != num_layers)
      f.refuse("layer_types", fmt::format("expected one entry for each of the {} layers", num_layers));
    for (const std::string& type : *types) {
      if (type != "chunked_attention" && type != "full_attention")
        f.refuse("layer_types", "only \"chunked_attention\" and \"full_attention\" are supported");
      t.chunked_layers.push_back(type == "chunked_attention");
    }
    if (t.attention_chunk_size == 0 || t.chunked_layers == t.uses_rope) t.chunked_layers.clear();
  }
}

// An explicit null means no chunks, as in transformers; absent means 8192.
int64_t read_chunk_size(const Fields& f) {
  const Json* value = f.raw("attention_chunk_size");
  if (!value) return 8192;
  if (value->is_null()) return 0;
  const int64_t size = f.integer("attention_chunk_size");
  if (size < 1) f.refuse("attention_chunk_size", "expected 1 or more, or null for attention without chunks");
  return size;
}

template <typename Enum>
Enum read_choice(const Fields& f, std::string_view key, std::string_view first, Enum first_value,
                 std::string_view second, Enum second_value) {
  const std::string text = f.string(key, first);
  if (text == first) return first_value;
  if (text == second) return second_value;
  f.refuse(key, fmt::format("expected \"{}\" or \"{}\"", first, second));
}

void read_text(const Fields& f, Llama4Config& config) {
  refuse_unsupported_text(f);
  TextConfig& t = config.text;
  t.vocab_size = f.integer("vocab_size", 202048);
  t.hidden_size = f.integer("hidden_size", 5120);
  t.num_hidden_layers = f.integer("num_hidden_layers", 48);
  t.num_attention_heads = f.integer("num_attention_heads", 40);
  // As in transformers, an explicit null is one for each query head; absent means 8.
  const bool has_null = f.raw("num_key_value_heads") && !f.has("num_key_value_heads");
  t.num_key_value_heads = f.integer("num_key_value_heads", has_null ? t.num_attention_heads : 8);
  if (t.num_attention_heads < 1) f.refuse("num_attention_heads", "expected 1 or more");
  t.head_dim = f.integer("head_dim", t.hidden_size / t.num_attention_heads);
  t.intermediate_size = f.integer("intermediate_size", 8192);
  t.intermediate_size_mlp = f.integer("intermediate_size_mlp", 16384);
  t.num_local_experts = f.integer("num_local_experts", 16);
  t.num_experts_per_tok = f.integer("num_experts_per_tok", 1);
  t.rms_norm_eps = f.number("rms_norm_eps", 1e-5);
  t.use_qk_norm = f.boolean("use_qk_norm", true);
  t.attn_temperature_tuning = f.boolean("attn_temperature_tuning", true);
  t.floor_scale = f.number("floor_scale", 8192);
  t.attn_scale = f.number("attn_scale", 0.1);
  t.attention_chunk_size = read_chunk_size(f);
  t.max_position_embeddings = f.integer("max_position_embeddings", 4096 * 32);
  t.router_activation =
      read_choice(f, kRouterActivation, "sigmoid", RouterActivation::kSigmoid, "softmax", RouterActivation::kSoftmax);
  t.score_on = read_choice(f, kRouterScoreOn, "input", ScoreOn::kInput, "output", ScoreOn::kOutput);
  read_layers(f, t);
  read_rope(f, config);
}

// A side given as a number or as [height, width] of equal values.
int64_t read_side(const Fields& f, std::string_view key, int64_t fallback) {
  const Json* value = f.find(key);
  if (!value || !value->is_array()) return f.integer(key, fallback);
  const auto sides = f.integers(key, 2);
  if (sides->size() != 2 || (*sides)[0] != (*sides)[1]) f.refuse(key, "expected one number or two equal ones");
  return (*sides)[0];
}

void read_vision(const Fields& f, Llama4Config& config) {
  refuse_unsupported_vision(f);
  VisionConfig v;
  v.hidden_size = f.integer("hidden_size", 768);
  v.num_hidden_layers = f.integer("num_hidden_layers", 34);
  v.num_attention_heads = f.integer("num_attention_heads", 16);
  v.intermediate_size = f.integer("intermediate_size", 5632);
  v.image_size = read_side(f, "image_size", 448);
  v.patch_size = read_side(f, "patch_size", 14);
  v.num_channels = f.integer("num_channels", 3);
  v.pixel_shuffle_ratio = f.number("pixel_shuffle_ratio", 0.5);
  v.vision_output_dim = f.integer("vision_output_dim", 7680);
  for (const char* key : {"projector_input_dim", "projector_output_dim"})
    if (f.integer(key, v.vision_output_dim) != v.vision_output_dim)
      f.refuse(key, fmt::format("expected vision_output_dim ({})", v.vision_output_dim));
  const auto rope = f.object("rope_parameters");
  if (rope && rope->string("rope_type", "default") != "default")
    rope->refuse("rope_type", "only \"default\" is supported for images");
  const double legacy_theta = f.number("rope_theta", v.rope_theta);
  v.rope_theta = rope ? rope->number("rope_theta", legacy_theta) : legacy_theta;
  if (const double eps = f.number("norm_eps", v.norm_eps); eps != v.norm_eps)
    config.notes.push_back(
        fmt::format("vision norm_eps {} is ignored: the LayerNorms use {} in every Llama 4 code", eps, v.norm_eps));
  config.vision = v;
}

// A token id under either of its names, in the text part or beside it. An explicit null is no such token.
int64_t read_token(const Fields& top, const Fields& text, std::string_view key, std::string_view alias,
                   int64_t fallback) {
  for (const Fields* f : {&text, &top}) {
    for (std::string_view name : {key, alias}) {
      if (f->has(name)) return f->integer(name);
      if (f->raw(name)) fallback = -1;
    }
  }
  return fallback;
}

void read_tokens(const Fields& top, const Fields& text, Llama4Config& config) {
  drop_absent_meta_tokens(config);
  config.bos_token_id = read_token(top, text, "bos_token_id", "bos_token_id", config.bos_token_id);
  config.pad_token_id = read_token(top, text, "pad_token_id", "pad_token_id", config.pad_token_id);
  if (config.vision) {
    config.image_token_id = read_token(top, text, "image_token_index", "image_token_id", config.image_token_id);
    config.boi_token_id = read_token(top, text, "boi_token_index", "boi_token_id", config.boi_token_id);
    config.eoi_token_id = read_token(top, text, "eoi_token_index", "eoi_token_id", config.eoi_token_id);
  }
  const Fields& holder = text.has("eos_token_id") ? text : top;
  if (const Json* eos = holder.find("eos_token_id"))
    config.eos_token_ids =
        eos->is_array() ? *holder.integers("eos_token_id", 1024) : std::vector{holder.integer("eos_token_id")};
}

void read_dtype(const Fields& top, const Fields& text, Llama4Config& config) {
  for (const Fields* f : {&top, &text}) {
    for (std::string_view key : {"dtype", "torch_dtype"}) {
      std::string name = f->string(key, "");
      if (name.empty()) continue;
      if (name.starts_with("torch.")) name.erase(0, 6);
      if (name == "bfloat16")
        config.dtype = DType::BF16;
      else if (name == "float16")
        config.dtype = DType::F16;
      else if (name == "float32")
        config.dtype = DType::F32;
      else
        f->refuse(key, "expected bfloat16, float16 or float32");
      return;
    }
  }
}

std::string architecture(const Fields& f) {
  const auto names = f.strings("architectures", 16);
  return names && !names->empty() ? names->front() : "";
}

}  // namespace

Llama4Config config_from_hf(const Json& json, std::string_view where) {
  const Fields top(json, where);
  // All other keys have defaults: without these, any JSON at all would be a Scout.
  if (!top.has("model_type") && !top.has("architectures"))
    top.refuse("model_type", "expected \"llama4\" or \"llama4_text\"; is this a model's config.json?");
  const std::string arch = architecture(top);
  const bool multimodal = top.has("text_config") || arch == "Llama4ForConditionalGeneration";
  const std::string type = top.string("model_type", multimodal ? "llama4" : "llama4_text");
  if (type != "llama4" && type != "llama4_text")
    top.refuse("model_type", "expected \"llama4\" or \"llama4_text\"; Puna runs models of the Llama 4 architecture");
  if (!arch.empty() && arch != "Llama4ForConditionalGeneration" && arch != "Llama4ForCausalLM")
    top.refuse("architectures", "expected Llama4ForConditionalGeneration or Llama4ForCausalLM");
  Llama4Config config;
  const auto nested = top.object("text_config");
  if (type == "llama4" && !nested) top.refuse("text_config", "a \"llama4\" model needs it; is the file complete?");
  const Fields& text = nested ? *nested : top;
  if (nested && top.boolean("tie_word_embeddings", false))
    top.refuse("tie_word_embeddings", "tied embeddings are not supported; save the model with its lm_head");
  read_text(text, config);
  if (type == "llama4" && arch != "Llama4ForCausalLM") {
    const auto vision = top.object("vision_config");
    if (!vision)
      top.refuse("vision_config",
                 "expected it in a multimodal model; one for text alone says \"model_type\": \"llama4_text\"");
    read_vision(*vision, config);
  }
  read_tokens(top, text, config);
  read_dtype(top, text, config);
  note_absent_image_tokens(config);
  validate(config, where);
  return config;
}

namespace {

Json rope_to_hf(const TextConfig& t) {
  std::optional<RopeScaling> scaling = t.rope_scaling;
  if (!t.rope_factors.empty()) scaling = scaling_of_factors(t);
  if (!scaling) return {{"rope_type", "default"}, {"rope_theta", t.rope_theta}};
  return {{"rope_type", "llama3"},
          {"rope_theta", t.rope_theta},
          {"factor", scaling->factor},
          {"low_freq_factor", scaling->low_freq_factor},
          {"high_freq_factor", scaling->high_freq_factor},
          {"original_max_position_embeddings", scaling->original_max_position_embeddings}};
}

// transformers' class wants an integer here.
Json floor_scale_to_hf(double floor_scale) {
  return floor_scale == std::floor(floor_scale) ? Json(static_cast<int64_t>(floor_scale)) : Json(floor_scale);
}

Json token_to_hf(int64_t id) { return id < 0 ? Json(nullptr) : Json(id); }

Json text_to_hf(const Llama4Config& config) {
  const TextConfig& t = config.text;
  std::vector<std::string> types;
  for (const LayerPlan& plan : layer_plan(t)) types.push_back(plan.chunked ? "chunked_attention" : "full_attention");
  Json json = {{"model_type", "llama4_text"},
               {"vocab_size", t.vocab_size},
               {"hidden_size", t.hidden_size},
               {"num_hidden_layers", t.num_hidden_layers},
               {"num_attention_heads", t.num_attention_heads},
               {"num_key_value_heads", t.num_key_value_heads},
               {"head_dim", t.head_dim},
               {"hidden_act", "silu"},
               {"intermediate_size", t.intermediate_size},
               {"intermediate_size_mlp", t.intermediate_size_mlp},
               {"num_local_experts", t.num_local_experts},
               {"num_experts_per_tok", t.num_experts_per_tok},
               {"interleave_moe_layer_step", t.interleave_moe_layer_step},
               {"moe_layers", t.moe_layers},
               {"no_rope_layers", t.uses_rope},
               {"no_rope_layer_interval", t.no_rope_layer_interval},
               {"layer_types", types},
               {"rms_norm_eps", t.rms_norm_eps},
               {"rope_parameters", rope_to_hf(t)},
               {"use_qk_norm", t.use_qk_norm},
               {"attn_temperature_tuning", t.attn_temperature_tuning},
               {"floor_scale", floor_scale_to_hf(t.floor_scale)},
               {"attn_scale", t.attn_scale},
               {"attention_chunk_size", t.attention_chunk_size ? Json(t.attention_chunk_size) : Json(nullptr)},
               {"max_position_embeddings", t.max_position_embeddings},
               {"attention_bias", false},
               {"tie_word_embeddings", false},
               {"bos_token_id", token_to_hf(config.bos_token_id)},
               {"eos_token_id", config.eos_token_ids},
               {"pad_token_id", token_to_hf(config.pad_token_id)}};
  if (t.router_activation == RouterActivation::kSoftmax) json[kRouterActivation] = "softmax";
  if (t.score_on == ScoreOn::kOutput) json[kRouterScoreOn] = "output";
  return json;
}

Json vision_to_hf(const VisionConfig& v) {
  return {{"model_type", "llama4_vision_model"},
          {"hidden_size", v.hidden_size},
          {"hidden_act", "gelu"},
          {"num_hidden_layers", v.num_hidden_layers},
          {"num_attention_heads", v.num_attention_heads},
          {"intermediate_size", v.intermediate_size},
          {"image_size", v.image_size},
          {"patch_size", v.patch_size},
          {"num_channels", v.num_channels},
          {"pixel_shuffle_ratio", v.pixel_shuffle_ratio},
          {"vision_output_dim", v.vision_output_dim},
          {"projector_input_dim", v.vision_output_dim},
          {"projector_output_dim", v.vision_output_dim},
          {"multi_modal_projector_bias", false},
          {"vision_feature_select_strategy", "default"},
          {"norm_eps", v.norm_eps},
          {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", v.rope_theta}}}};
}

std::string dtype_to_hf(DType dtype) {
  if (dtype == DType::F32) return "float32";
  return dtype == DType::F16 ? "float16" : "bfloat16";
}

}  // namespace

Json config_to_hf(const Llama4Config& config) {
  Json json;
  if (config.vision) {
    json = {{"model_type", "llama4"},
            {"architectures", {"Llama4ForConditionalGeneration"}},
            {"boi_token_index", config.boi_token_id},
            {"eoi_token_index", config.eoi_token_id},
            {"image_token_index", config.image_token_id},
            {"tie_word_embeddings", false},
            {"text_config", text_to_hf(config)},
            {"vision_config", vision_to_hf(*config.vision)}};
  } else {
    json = text_to_hf(config);
    json["architectures"] = {"Llama4ForCausalLM"};
  }
  json["dtype"] = dtype_to_hf(config.dtype);
  return json;
}

}  // namespace puna::arch
