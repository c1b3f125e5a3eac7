#include "engine/loaded_model.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "arch/counts.h"
#include "base/error.h"
#include "base/memory.h"
#include "checkpoint/adapter.h"
#include "checkpoint/scalar_type.h"
#include "io/gguf.h"
#include "text/chat.h"

namespace puna::engine {
namespace {

namespace fs = std::filesystem;

bool is_gguf(const fs::path& path) { return path.extension() == ".gguf"; }

fs::path directory_of(const fs::path& model) {
  if (fs::is_directory(model)) return model;
  return model.has_parent_path() ? model.parent_path() : fs::path(".");
}

std::shared_ptr<const text::Tokenizer> open_tokenizer(const LoadOptions& options) {
  const fs::path path =
      options.tokenizer.value_or(is_gguf(options.model) ? options.model : directory_of(options.model));
  if (is_gguf(path)) return text::Tokenizer::from_gguf(io::open_gguf(path).metadata, path.string());
  if (fs::is_directory(path)) {
    const bool present = fs::exists(path / "tokenizer.json") || fs::exists(path / "tokenizer.model");
    if (!present && !options.need_tokenizer && !options.tokenizer) return nullptr;
    return text::Tokenizer::from_directory(path);
  }
  if (path.extension() == ".json") return text::Tokenizer::from_hf_json(path);
  return text::Tokenizer::from_rank_file(path);
}

void check_vocabulary(const LoadedModel& loaded) {
  const int64_t have = loaded.tokenizer->vocab_size(), model = loaded.config().text.vocab_size;
  if (have > model)
    fail(loaded.name, "the tokenizer has {} entries, the model's vocabulary {}; they belong to different models", have,
         model);
}

std::vector<TokenId> ids_of(const Json& value, std::string_view where) {
  std::vector<TokenId> ids;
  for (const Json& id : value.is_array() ? value : Json::array({value})) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX)
      fail(where, "eos_token_id holds {}; expected token ids", id.dump());
    ids.push_back(static_cast<TokenId>(id.get<int64_t>()));
  }
  return ids;
}

// Every id that either the tokenizer, config.json or generation_config.json calls the end of a turn.
std::vector<TokenId> collect_stop_tokens(const LoadedModel& loaded, const Json& generation, std::string_view where) {
  std::vector<TokenId> ids;
  if (loaded.tokenizer) ids = text::stop_tokens(*loaded.tokenizer);
  for (const int64_t id : loaded.config().eos_token_ids) ids.push_back(static_cast<TokenId>(id));
  if (generation.contains("eos_token_id") && !generation["eos_token_id"].is_null())
    for (const TokenId id : ids_of(generation["eos_token_id"], where)) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

double number_or(const Json& json, const char* key, double otherwise, std::string_view where) {
  if (!json.contains(key) || json[key].is_null()) return otherwise;
  if (!json[key].is_number()) fail(where, "{} is {}; expected a number", key, json[key].dump());
  return json[key].get<double>();
}

DType stored_type(at::ScalarType dtype) { return checkpoint::dtype_of(dtype).value(); }

// "BF16", or "stored and BF16" where integers stay as they are.
std::string held_as(const checkpoint::ModelSource& source, const model::LoadOptions& load) {
  const model::WeightBytes bytes = model::weight_bytes(source, load);
  const std::string dense(dtype_name(stored_type(load.dtype)));
  return bytes.packed == 0 ? dense : "stored and " + dense;
}

// The largest context whose cache fits in `bytes`, by bisection: the cache grows with the tokens.
int64_t context_that_fits(const arch::TextConfig& config, at::ScalarType dtype, int64_t bytes, int64_t at_most) {
  int64_t low = 0, high = at_most;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (arch::kv_cache_bytes(config, middle, stored_type(dtype)) <= bytes)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

}  // namespace

SamplingParams sampling_defaults(const Json& json, std::string_view where) {
  SamplingParams params;
  if (!json.is_object()) fail(where, "is {}; expected an object", json.type_name());
  params.temperature = number_or(json, "temperature", params.temperature, where);
  params.top_p = number_or(json, "top_p", params.top_p, where);
  params.min_p = number_or(json, "min_p", params.min_p, where);
  params.repetition_penalty = number_or(json, "repetition_penalty", params.repetition_penalty, where);
  params.top_k = static_cast<int64_t>(std::clamp(number_or(json, "top_k", 0, where), -1.0, 1e9));
  if (json.contains("do_sample") && json["do_sample"].is_boolean() && !json["do_sample"].get<bool>())
    params.temperature = 0;
  try {
    validate(params);
  } catch (const UsageError& error) {
    throw Error(where, error.what());
  }
  return params;
}

MemoryNeed memory_need(const checkpoint::ModelSource& source, const model::LoadOptions& load, int64_t context_tokens) {
  MemoryNeed need;
  const model::WeightBytes weights = model::weight_bytes(source, load);
  need.weights_bytes = weights.total();
  if (load.expert_bytes > 0) need.weights_bytes -= std::max<int64_t>(0, weights.experts - load.expert_bytes);
  need.cache_bytes = arch::kv_cache_bytes(source.config().text, context_tokens, stored_type(load.dtype));
  const arch::TextConfig& text = source.config().text;
  const int64_t piece = std::min<int64_t>(context_tokens, 2048);
  const int64_t widest = std::max({text.intermediate_size, text.intermediate_size_mlp, text.hidden_size});
  need.activation_bytes = piece * (8 * widest * 4 + text.num_attention_heads * std::min(context_tokens, piece) * 4);
  return need;
}

void check_memory(const checkpoint::ModelSource& source, const model::LoadOptions& load, int64_t context_tokens,
                  int64_t available_bytes, std::string_view where) {
  const MemoryNeed need = memory_need(source, load, context_tokens);
  if (need.total() <= available_bytes) return;
  std::vector<std::string> remedies;
  const int64_t fixed = need.weights_bytes + need.activation_bytes;
  const int64_t context = context_that_fits(source.config().text, load.dtype, available_bytes - fixed, context_tokens);
  if (context >= 256) remedies.push_back(fmt::format("a context of at most {} tokens", context));
  const auto total_with = [&](model::LoadOptions other) { return memory_need(source, other, context_tokens).total(); };
  const model::LoadOptions stored = {load.dtype, load.device, model::WeightForm::kStored};
  if (const int64_t kept = total_with(stored); kept < need.total())
    remedies.push_back(
        fmt::format("--weights stored (needs {}{})", format_bytes(kept), kept <= available_bytes ? ", fits" : ""));
  if (load.dtype == at::kFloat) {
    const int64_t halved = total_with({at::kBFloat16, load.device, load.weights});
    remedies.push_back(
        fmt::format("--dtype bf16 (needs {}{})", format_bytes(halved), halved <= available_bytes ? ", fits" : ""));
  }
  remedies.push_back(fmt::format("{} more memory", format_bytes(need.total() - available_bytes)));
  fail(where,
       "needs {} of memory (weights {} as {}, cache {} for {} tokens, work space {}) and {} are available; what would "
       "make it fit: {}; --no-memory-check tries anyway",
       format_bytes(need.total()), format_bytes(need.weights_bytes), held_as(source, load),
       format_bytes(need.cache_bytes), context_tokens, format_bytes(need.activation_bytes),
       format_bytes(available_bytes), fmt::join(remedies, ", or "));
}

int64_t expert_bytes(const checkpoint::ModelSource& source, const model::LoadOptions& load, int64_t context_tokens,
                     int64_t memory_bytes, std::string_view where) {
  const int64_t experts = model::weight_bytes(source, load).experts;
  const MemoryNeed need = memory_need(source, load, context_tokens);
  if (need.total() <= memory_bytes) return 0;
  if (experts == 0)
    fail(where, "needs {} and may have {}; experts stay on disk in packed models alone: make one with puna pack",
         format_bytes(need.total()), format_bytes(memory_bytes));
  int64_t block = 0;
  for (const arch::ParamRow& row : source.rows())
    if (const checkpoint::PackedRow* packed = source.packed(row); packed && row.shape.size() == 3)
      for (const auto& place : packed->places) block = std::max(block, place.block_bytes);
  const int64_t others = need.total() - experts;
  if (memory_bytes < others + 2 * block)
    fail(where,
         "may have {}, but needs {} beside its experts, and room for two of {}; the least that works is --memory {}",
         format_bytes(memory_bytes), format_bytes(others), format_bytes(block),
         fmt::format("{}MiB", (others + 2 * block + (1 << 20) - 1) >> 20));
  return memory_bytes - others;
}

LoadedModel load_model(const LoadOptions& options) {
  LoadedModel loaded;
  loaded.name = options.model.string();
  if (!fs::exists(options.model))
    fail(loaded.name, "there is no such file or directory; give the model's with --model");
  if (options.device.is_cuda() && !at::hasCUDA())
    fail("--device", "this LibTorch has no CUDA, or no GPU is visible; use --device cpu");
  loaded.source = checkpoint::open_model(options.model);
  loaded.device = options.device;
  loaded.dtype = options.dtype.value_or(checkpoint::default_compute_type(loaded.config().dtype));
  loaded.tokenizer = open_tokenizer(options);
  if (loaded.tokenizer) check_vocabulary(loaded);
  const fs::path generation = directory_of(options.model) / "generation_config.json";
  const Json json = fs::exists(generation) && !is_gguf(options.model) ? read_json_file(generation) : Json::object();
  loaded.defaults = sampling_defaults(json, generation.string());
  loaded.stop_tokens = collect_stop_tokens(loaded, json, generation.string());
  if (loaded.has_vision())
    loaded.image_processor =
        media::image_processor_config(directory_of(options.model), loaded.config().vision->image_size);
  model::LoadOptions load = {loaded.dtype, loaded.device, options.weights};
  const int64_t longest = loaded.config().text.max_position_embeddings;
  const int64_t context = longest > 0 ? std::min(options.context_tokens, longest) : options.context_tokens;
  if (options.memory_bytes > 0)
    load.expert_bytes =
        expert_bytes(*loaded.source, load, std::max<int64_t>(context, 1), options.memory_bytes, loaded.name);
  if (options.check_memory && options.device.is_cpu())
    check_memory(*loaded.source, load, std::max<int64_t>(context, 1), available_memory_bytes(), loaded.name);
  loaded.model = model::Model::load(*loaded.source, load);
  for (const fs::path& dir : options.adapters)
    loaded.model->add_adapter(checkpoint::open_adapter(dir, loaded.config()));
  return loaded;
}

}  // namespace puna::engine
