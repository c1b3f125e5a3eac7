// What the arch tests share.
#pragma once

#include <functional>
#include <string>

#include "arch/config.h"
#include "base/error.h"

namespace puna::arch {

/// The message of the Error that `action` throws; empty when it throws none.
inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

/// A small text-only config.json in the legacy style.
inline Json legacy_text() {
  return Json::parse(R"({"model_type": "llama4_text", "architectures": ["Llama4ForCausalLM"], "vocab_size": 512,
    "hidden_size": 64, "num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "intermediate_size": 96, "intermediate_size_mlp": 128, "num_local_experts": 4, "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 2, "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 1.0,
    "original_max_position_embeddings": 8192}, "no_rope_layers": [], "attention_chunk_size": 16,
    "attn_temperature_tuning": 4, "floor_scale": 8, "attn_scale": 0.1, "use_qk_norm": true, "torch_dtype": "bfloat16",
    "bos_token_id": 480, "eos_token_id": [481, 487, 488], "pad_token_id": 492})");
}

/// The vision_config that fits a multimodal variant of legacy_text().
inline Json small_vision() {
  return Json::parse(R"({"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256,
    "image_size": 56, "patch_size": 14, "pixel_shuffle_ratio": 0.5, "vision_output_dim": 80, "projector_input_dim": 80,
    "projector_output_dim": 80, "rope_theta": 10000.0, "vision_feature_layer": -1})");
}

inline Json multimodal() {
  return {{"model_type", "llama4"},       {"architectures", {"Llama4ForConditionalGeneration"}},
          {"text_config", legacy_text()}, {"vision_config", small_vision()},
          {"image_token_index", 498},     {"boi_token_index", 493},
          {"eoi_token_index", 494},       {"torch_dtype", "bfloat16"}};
}

/// GGUF metadata of the same sizes.
inline Json gguf_metadata() {
  return {{"general.architecture", "llama4"},
          {"llama4.block_count", 8},
          {"llama4.context_length", 4096},
          {"llama4.embedding_length", 64},
          {"llama4.feed_forward_length", 128},
          {"llama4.expert_feed_forward_length", 96},
          {"llama4.attention.head_count", 4},
          {"llama4.attention.head_count_kv", 2},
          {"llama4.attention.key_length", 16},
          {"llama4.attention.value_length", 16},
          {"llama4.attention.layer_norm_rms_epsilon", 1e-5},
          {"llama4.rope.freq_base", 500000.0},
          {"llama4.rope.dimension_count", 16},
          {"llama4.expert_count", 4},
          {"llama4.expert_used_count", 1},
          {"llama4.interleave_moe_layer_step", 2},
          {"llama4.vocab_size", 512},
          {"tokenizer.ggml.bos_token_id", 480},
          {"tokenizer.ggml.eos_token_id", 488}};
}

/// params.json of Llama 4 Scout: public facts (llama-models, models/llama4).
inline Json meta_scout() {
  return Json::parse(R"({"dim": 5120, "n_layers": 48, "n_heads": 40, "n_kv_heads": 8, "head_dim": 128,
    "vocab_size": 202048, "multiple_of": 2048, "ffn_dim_multiplier": 1.2, "ffn_exp": 4.0, "norm_eps": 1e-05,
    "attention_chunk_size": 8192, "rope_theta": 500000.0, "use_scaled_rope": true, "nope_layer_interval": 4,
    "use_qk_norm": true, "attn_temperature_tuning": true, "floor_scale": 8192.0, "attn_scale": 0.1,
    "moe_args": {"num_experts": 16, "capacity_factor": 1.0, "auto_scale_F": true, "top_k": 1,
    "interleave_moe_layer_step": 1}, "vision_args": {"image_size": {"height": 336, "width": 336},
    "patch_size": {"height": 14, "width": 14}, "dim": 1408, "n_layers": 34, "n_heads": 16, "mlp_ratio": 4.0,
    "output_dim": 4096, "pixel_shuffle_ratio": 0.5}})");
}

}  // namespace puna::arch
