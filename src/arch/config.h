// src/arch: what a Llama 4 model is, as data: configuration, layer plan, parameter table, presets, names in other
// formats. No tensors and no files: readers hand it JSON, and everything that computes asks it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/json.h"

namespace puna::arch {

enum class RouterActivation { kSigmoid, kSoftmax };
/// Where the router's score multiplies: the expert's input (released models) or its output.
enum class ScoreOn { kInput, kOutput };

/// "llama3" rope scaling (SPEC 3). low == high makes it a step function.
struct RopeScaling {
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 1;
  int64_t original_max_position_embeddings = 8192;
  bool operator==(const RopeScaling&) const = default;
};

struct TextConfig {
  int64_t vocab_size = 0;   // V
  int64_t hidden_size = 0;  // D
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;    // H
  int64_t num_key_value_heads = 0;    // G
  int64_t head_dim = 0;               // K
  int64_t intermediate_size = 0;      // F: routed and shared experts
  int64_t intermediate_size_mlp = 0;  // dense layers
  int64_t num_local_experts = 0;      // E
  int64_t num_experts_per_tok = 1;    // A
  int64_t interleave_moe_layer_step = 1;
  std::vector<int64_t> moe_layers;  // resolved: layer indices with experts, ascending
  std::vector<int> uses_rope;       // resolved, per layer: 1 = rope ("no_rope_layers" in configs: the name is inverted)
  std::vector<int> chunked_layers;  // per layer: 1 = attends within chunks; empty: the layers with rope do
  int64_t no_rope_layer_interval = 4;
  double rms_norm_eps = 1e-5;
  double rope_theta = 500000;
  std::optional<RopeScaling> rope_scaling;
  std::vector<double>
      rope_factors;  // [K/2] divisors of the frequencies, from GGUF's rope_freqs; empty: rope_scaling decides
  bool use_qk_norm = true;
  bool attn_temperature_tuning = true;
  double floor_scale = 8192;
  double attn_scale = 0.1;
  int64_t attention_chunk_size = 8192;  // 0: no layer is chunked
  int64_t max_position_embeddings = 0;
  RouterActivation router_activation = RouterActivation::kSigmoid;
  ScoreOn score_on = ScoreOn::kInput;
  bool operator==(const TextConfig&) const = default;
};

struct VisionConfig {
  int64_t hidden_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t intermediate_size = 0;  // of the MLP
  int64_t image_size = 336;       // side of a tile, pixels
  int64_t patch_size = 14;
  int64_t num_channels = 3;
  double pixel_shuffle_ratio = 0.5;
  int64_t vision_output_dim = 0;  // Po: adapter output
  double rope_theta = 10000;
  double norm_eps = 1e-5;  // of every LayerNorm; the key of that name is ignored, as in every released model's code
  /// Patches of a tile side, and tokens of a tile after the pixel shuffle.
  int64_t grid() const { return image_size / patch_size; }
  int64_t tokens_per_tile() const;
  /// Side of the square of patches that becomes one token (1 / pixel_shuffle_ratio), and the adapter's input width.
  int64_t shuffle_side() const;
  int64_t adapter_input_size() const { return hidden_size * shuffle_side() * shuffle_side(); }
  bool operator==(const VisionConfig&) const = default;
};

struct Llama4Config {
  TextConfig text;
  std::optional<VisionConfig> vision;
  DType dtype = DType::BF16;  // of the stored weights
  // Token ids: -1 when the model has no such token (image tokens: always without vision). Absent in the source: Meta's
  // ids where the vocabulary has them.
  int64_t bos_token_id = 200000;
  std::vector<int64_t> eos_token_ids = {200001, 200007, 200008};
  int64_t pad_token_id = 200018;
  int64_t image_token_id = 200092;  // <|patch|>: "image_token_index"
  int64_t boi_token_id = 200080;
  int64_t eoi_token_id = 200081;
  std::vector<std::string> notes;  // rules applied where the source lacks a key; shown by `puna inspect`
  bool operator==(const Llama4Config&) const = default;
};

/// From Hugging Face config.json (legacy and v5, multimodal and text only). Throws Error naming the key, value and
/// remedy. Missing keys take transformers' defaults. Two keys are Puna's own, in the text part:
/// "puna_router_activation"
/// ("sigmoid" or "softmax") and "puna_router_score_on" ("input" or "output"). "quantization_config" is not read here.
Llama4Config config_from_hf(const Json& json, std::string_view where);
/// From Meta's params.json.
Llama4Config config_from_meta(const Json& json, std::string_view where);
/// From GGUF metadata (io::GgufFile::metadata). What GGUF has no key for follows llama.cpp's rules, told in `notes`.
/// text.rope_factors stays empty: the checkpoint fills it from the tensor rope_freqs.weight.
Llama4Config config_from_gguf(const Json& metadata, std::string_view where);
/// Hugging Face config.json (v5 style) of this config. Throws Error when text.rope_factors are no llama3 scaling.
Json config_to_hf(const Llama4Config& config);

/// Throws Error on values that contradict each other or are out of range: what, the value, the remedy. All readers call
/// it: of a config that passed, every weight's size in bytes, and their sum, fit in int64.
void validate(const Llama4Config& config, std::string_view where);

/// "tiny", "scout", "maverick", "behemoth"; nullopt for another name.
std::optional<Llama4Config> preset(std::string_view name);
std::vector<std::string> preset_names();

}  // namespace puna::arch
