// Options that several commands share, each declared once.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/loaded_model.h"
#include "engine/sampler.h"
#include "grammar/grammar.h"

namespace CLI {
class App;
}

namespace puna::cli {

struct ModelOptions {
  std::string model, tokenizer, dtype = "auto", weights = "stored", device = "cpu", memory, expert_profile;
  std::vector<std::string> adapters;
  int threads = 0;
  bool no_memory_check = false, pack = false;
};

/// --model, --tokenizer, --adapter, --dtype, --weights, --device, --threads, --memory, --expert-profile,
/// --no-memory-check, --pack. What `options` holds are the defaults.
void add_model_options(CLI::App& command, ModelOptions& options);

/// The model that comes with Puna: what PUNA_DEMO_MODEL says, else models/puna-demo beside the program or in its source
/// tree. nullopt when it is not there.
std::optional<std::string> shipped_model();

/// --model, else the model that comes with Puna, which one line on standard error says. Throws UsageError without
/// either.
std::string model_or_shipped(const ModelOptions& options);

/// Sets the threads and opens the model (see model_or_shipped); `context_tokens` are what the cache must have room for.
engine::LoadedModel load(const ModelOptions& options, int64_t context_tokens, bool need_tokenizer = true);

/// "16GiB", "800MiB", "16GB" (10^9), "50%" of the memory that is available now. Throws UsageError naming `flag`.
int64_t parse_memory(const std::string& text, const std::string& flag);

/// For the check of an option: why its text is refused, or "". CLI11 alone would wrap -1 around for unsigned numbers.
std::string not_negative(const std::string& text);

struct SamplingOptions {
  std::optional<double> temperature, top_p, min_p, typical_p, repetition_penalty, frequency_penalty, presence_penalty;
  std::optional<int64_t> top_k;
  std::vector<std::string> logit_bias;  // ID=VALUE
  std::optional<uint64_t> seed;
};

/// --temperature, --top-p, --top-k, --min-p, --typical-p, the three penalties, --logit-bias, --seed.
void add_sampling_options(CLI::App& command, SamplingOptions& options);

/// What was given, else the model's defaults; without a seed, a fresh random one.
engine::SamplingParams resolve(const SamplingOptions& options, const engine::SamplingParams& defaults);

struct GrammarOptions {
  std::string grammar, json_schema;
};

/// --grammar, --json-schema.
void add_grammar_options(CLI::App& command, GrammarOptions& options);

/// The grammar of the file that was given; absent without one. Throws Error for a grammar that is wrong.
std::optional<grammar::Source> read_grammar(const GrammarOptions& options);

/// Compiled for the model; null without a grammar.
std::shared_ptr<const grammar::CompiledGrammar> compile_grammar(std::optional<grammar::Source> source,
                                                                const engine::LoadedModel& loaded);

}  // namespace puna::cli
