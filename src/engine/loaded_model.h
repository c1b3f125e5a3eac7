// A model with all that comes beside it: tokenizer, image processor, sampling defaults, tokens that end a turn.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/model_source.h"
#include "engine/sampler.h"
#include "media/image_processor.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace puna::engine {

struct LoadOptions {
  std::filesystem::path model;                     // directory, .gguf, .safetensors or .pth
  std::optional<std::filesystem::path> tokenizer;  // file or directory; absent: beside the model
  std::vector<std::filesystem::path> adapters;
  std::optional<at::ScalarType> dtype;  // absent: FP32 for stored FP32, else BF16
  at::Device device = at::kCPU;
  model::WeightForm weights = model::WeightForm::kStored;
  int64_t context_tokens = 8192;  // whose cache must fit too
  int64_t memory_bytes = 0;       // for everything; routed experts of a packed model that do not fit stay in their file
  bool check_memory = true;
  bool need_tokenizer = true;  // false: a missing tokenizer is no error (token ids in, logits out)
};

struct LoadedModel {
  std::string name;  // the model's directory or file
  std::unique_ptr<checkpoint::ModelSource> source;
  std::unique_ptr<model::Model> model;
  std::shared_ptr<const text::Tokenizer> tokenizer;
  media::ImageProcessorConfig image_processor;
  SamplingParams defaults;           // generation_config.json, else Meta's
  std::vector<TokenId> stop_tokens;  // sorted
  at::ScalarType dtype = at::kBFloat16;
  at::Device device = at::kCPU;

  const arch::Llama4Config& config() const { return source->config(); }
  bool has_vision() const { return config().vision.has_value(); }
};

/// Opens, checks memory, loads. Throws Error for a tokenizer with more entries than the model's vocabulary.
LoadedModel load_model(const LoadOptions& options);

/// Sampling defaults of a generation_config.json: do_sample false is greedy; values that are absent are Meta's (0.6 and
/// 0.9).
SamplingParams sampling_defaults(const Json& generation_config, std::string_view where);

/// Bytes that a model needs in memory, and how they come about.
struct MemoryNeed {
  int64_t weights_bytes;
  int64_t cache_bytes;       // keys and values of context_tokens positions
  int64_t activation_bytes;  // of one prefill piece, roughly
  int64_t total() const { return weights_bytes + cache_bytes + activation_bytes; }
};
MemoryNeed memory_need(const checkpoint::ModelSource& source, const model::LoadOptions& load, int64_t context_tokens);

/// What is left of `memory_bytes` for routed experts; 0 when all fit. Throws Error, with the least that works, when not
/// even two do, or when the model is not packed.
int64_t expert_bytes(const checkpoint::ModelSource& source, const model::LoadOptions& load, int64_t context_tokens,
                     int64_t memory_bytes, std::string_view where);

/// Throws Error unless the need fits in `available_bytes`: what it needs, what is there, what would make it fit.
void check_memory(const checkpoint::ModelSource& source, const model::LoadOptions& load, int64_t context_tokens,
                  int64_t available_bytes, std::string_view where);

}  // namespace puna::engine
