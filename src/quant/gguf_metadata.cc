#include "quant/gguf_metadata.h"

#include <algorithm>
#include <string_view>

#include <fmt/format.h>

#include "arch/rope_factors.h"
#include "base/error.h"
#include "text/byte_level.h"

namespace puna::quant {
namespace {

// llama.cpp's rules for this architecture.
constexpr int64_t kInterval = 4, kChunk = 8192, kExpertsWithoutQkNorm = 128;
constexpr double kFloorScale = 8192, kAttentionScale = 0.1;

enum TokenType : int32_t { kNormal = 1, kControl = 3, kUnused = 5 };

uint32_t small(int64_t value) {
  PUNA_CHECK(value >= 0 && value <= UINT32_MAX, "{} is no size of a model", value);
  return static_cast<uint32_t>(value);
}

/// LLAMA_FTYPE of llama.cpp: what most matrices are.
uint32_t file_type(DType dense, const Rules& rules) {
  const Format& format = rules.routed_experts.quantised() ? rules.routed_experts : rules.attention;
  switch (format.code) {
    case Code::kQ4_0:
      return 2;
    case Code::kQ8_0:
      return 7;
    case Code::kQ4_K:
      return 14;
    default:
      return dense == DType::F32 ? 0 : dense == DType::F16 ? 1 : 32;
  }
}

}  // namespace

std::vector<std::string> beyond_llama_cpp(const arch::Llama4Config& config) {
  const arch::TextConfig& t = config.text;
  std::vector<std::string> found;
  const auto differs = [&](bool condition, std::string_view what) {
    if (condition) found.emplace_back(what);
  };
  const int64_t longest = t.max_position_embeddings;
  bool every_fourth = true, chunked_with_rope = true, every_step = t.num_local_experts > 0;
  size_t moe = 0;
  for (int64_t i = 0; i < t.num_hidden_layers; ++i) {
    const auto layer = static_cast<size_t>(i);
    every_fourth &= (t.uses_rope[layer] != 0) == ((i + 1) % kInterval != 0);
    chunked_with_rope &= t.chunked_layers.empty() || (t.chunked_layers[layer] != 0) == (t.uses_rope[layer] != 0);
    const bool experts = moe < t.moe_layers.size() && t.moe_layers[moe] == i;
    if (experts) ++moe;
    every_step &= experts == ((i + 1) % t.interleave_moe_layer_step == 0);
  }
  differs(t.num_local_experts == 0, "no experts");
  differs(!every_fourth, "other layers than every 4th without rope");
  differs(!chunked_with_rope, "other layers than those with rope attend within chunks");
  differs(!every_step && t.num_local_experts > 0, "experts in other layers than every step-th");
  differs(t.use_qk_norm != (t.num_local_experts != kExpertsWithoutQkNorm),
          fmt::format("use_qk_norm {} with {} experts", t.use_qk_norm, t.num_local_experts));
  // Positions up to `longest` are all that the model has; 0: no end.
  const auto reaches = [&](double position) { return longest == 0 || static_cast<double>(longest) > position; };
  const int64_t chunk = t.attention_chunk_size > 0 ? std::min(t.attention_chunk_size, kChunk) : kChunk;
  differs(t.attention_chunk_size != kChunk && reaches(static_cast<double>(chunk)),
          fmt::format("attention_chunk_size {} (8192 there)", t.attention_chunk_size));
  const bool tuned = t.attn_temperature_tuning;
  const double floor_scale = tuned ? std::min(t.floor_scale, kFloorScale) : kFloorScale;
  differs((!tuned || t.floor_scale != kFloorScale || t.attn_scale != kAttentionScale) && reaches(floor_scale - 1),
          fmt::format("attention temperature {}, floor_scale {}, attn_scale {} (8192 and 0.1 there)",
                      tuned ? "on" : "off", t.floor_scale, t.attn_scale));
  differs(t.router_activation != arch::RouterActivation::kSigmoid || t.score_on != arch::ScoreOn::kInput,
          "another router");
  return found;
}

std::vector<float> rope_divisors(const arch::TextConfig& config) {
  std::vector<double> divisors = config.rope_factors;
  if (divisors.empty() && config.rope_scaling)
    divisors = arch::factors_of_scaling(*config.rope_scaling, config.rope_theta, config.head_dim);
  return {divisors.begin(), divisors.end()};
}

io::GgufMetadata gguf_model_keys(const arch::Llama4Config& config, DType dense, const Rules& rules) {
  const arch::TextConfig& t = config.text;
  const bool plain = beyond_llama_cpp(config).empty();
  io::GgufMetadata keys = {{"general.architecture", std::string(plain ? "llama4" : "llama4-puna")},
                           {"general.type", std::string("model")},
                           {"general.file_type", file_type(dense, rules)},
                           {"general.quantization_version", uint32_t{2}}};
  const auto add = [&](const char* name, io::GgufValue value) {
    keys.emplace_back(fmt::format("llama4.{}", name), std::move(value));
  };
  add("block_count", small(t.num_hidden_layers));
  add("context_length", small(t.max_position_embeddings));
  add("embedding_length", small(t.hidden_size));
  add("feed_forward_length", small(t.intermediate_size_mlp));
  add("attention.head_count", small(t.num_attention_heads));
  add("attention.head_count_kv", small(t.num_key_value_heads));
  add("attention.key_length", small(t.head_dim));
  add("attention.value_length", small(t.head_dim));
  add("attention.layer_norm_rms_epsilon", static_cast<float>(t.rms_norm_eps));
  add("attention.chunk_size", small(t.attention_chunk_size));
  add("attention.temperature_length", small(static_cast<int64_t>(t.floor_scale)));
  add("attention.temperature_scale", static_cast<float>(t.attn_scale));
  add("rope.freq_base", static_cast<float>(t.rope_theta));
  add("rope.dimension_count", small(t.head_dim));
  add("vocab_size", small(t.vocab_size));
  add("expert_count", small(t.num_local_experts));
  add("expert_used_count", small(t.num_experts_per_tok));
  add("expert_feed_forward_length", small(t.intermediate_size));
  add("interleave_moe_layer_step", small(t.interleave_moe_layer_step));
  if (plain) return keys;
  arch::Llama4Config text = config;
  text.vision.reset();
  keys.emplace_back("puna.config", arch::config_to_hf(text).dump());
  return keys;
}

io::GgufMetadata gguf_tokenizer_keys(const text::TokenizerTables& tokenizer, const arch::Llama4Config& config,
                                     const std::string& template_text) {
  if (tokenizer.tokens.empty()) return {{"tokenizer.ggml.model", std::string("no_vocab")}};
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  for (size_t i = 0; i < static_cast<size_t>(config.text.vocab_size); ++i) {
    const bool known = i < tokenizer.tokens.size(), special = known && tokenizer.is_special[i];
    tokens.push_back(!known    ? fmt::format("[PAD{}]", i)
                     : special ? tokenizer.tokens[i]
                               : text::byte_level_from_bytes(tokenizer.tokens[i]));
    types.push_back(!known ? kUnused : special ? kControl : kNormal);
  }
  const auto named = [&](const char* name) -> int64_t {
    for (size_t i = 0; i < tokenizer.tokens.size(); ++i)
      if (tokenizer.is_special[i] && tokenizer.tokens[i] == name) return static_cast<int64_t>(i);
    return -1;
  };
  io::GgufMetadata keys = {{"tokenizer.ggml.model", std::string("gpt2")},
                           {"tokenizer.ggml.pre", std::string("llama4")},
                           {"tokenizer.ggml.tokens", std::move(tokens)},
                           {"tokenizer.ggml.token_type", std::move(types)},
                           {"tokenizer.ggml.merges", tokenizer.merges}};
  const auto add_id = [&](const char* name, int64_t id) {
    if (id >= 0) keys.emplace_back(fmt::format("tokenizer.ggml.{}_token_id", name), small(id));
  };
  const int64_t end = named("<|eot|>");
  add_id("bos", config.bos_token_id);
  add_id("eos", end >= 0 || config.eos_token_ids.empty() ? end : config.eos_token_ids[0]);
  add_id("eot", end);
  add_id("eom", named("<|eom|>"));
  add_id("padding", config.pad_token_id);
  keys.emplace_back("tokenizer.ggml.add_bos_token", config.bos_token_id >= 0);
  if (!template_text.empty()) keys.emplace_back("tokenizer.chat_template", template_text);
  return keys;
}

}  // namespace puna::quant
