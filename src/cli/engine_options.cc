#include "cli/engine_options.h"

#include <CLI/CLI.hpp>
#include <charconv>

#include "base/error.h"
#include "cli/options.h"
#include "engine/generate.h"

namespace puna::cli {
namespace {

constexpr int64_t kGuesses = 4;  // at a time, when no number is given

// "ngram" or "ngram:N".
int64_t lookup_tokens(const std::string& text) {
  const std::string name = text.substr(0, text.find(':'));
  int64_t count = kGuesses;
  const char* end = text.data() + text.size();
  if (text.size() > name.size()) {
    const auto [last, error] = std::from_chars(text.data() + name.size() + 1, end, count);
    if (error != std::errc() || last != end) count = 0;
  }
  if (name != "ngram" || count < 1 || count > 64)
    throw UsageError("--speculate", fmt::format("is '{}'; use ngram or ngram:N, N tokens at a time, 1 to 64", text));
  return count;
}

}  // namespace

void add_engine_options(CLI::App& command, EngineFlags& flags) {
  const std::string group = "Engine";
  command.add_option("--speculate", flags.speculate, "Guess from the text so far: ngram, or ngram:N tokens at a time")
      ->type_name("HOW")
      ->group(group);
  command.add_option("--draft", flags.draft, "Guess with a smaller model of the same tokenizer")
      ->type_name("DIR")
      ->group(group);
  command
      .add_option("--cache-memory", flags.cache_memory,
                  "For keys and values, such as 4GiB; default: half of what is available, taken as it is used")
      ->type_name("BYTES")
      ->group(group);
  command
      .add_option("--step-tokens", flags.step_tokens,
                  "Tokens of a step at most: fewer let answers go on sooner while a long prompt is read")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 20))
      ->type_name("N")
      ->default_str(flags.step_tokens > 0 ? std::to_string(flags.step_tokens) : "2048")
      ->group(group);
  command.add_flag("--int8-cache", flags.int8_cache, "Keys and values in INT8: half the memory of BF16, not exact")
      ->group(group);
  command
      .add_flag("--batch-invariant", flags.batch_invariant,
                "The same bits whatever else runs: every sequence by itself, slower")
      ->group(group);
}

EngineSetup::EngineSetup(const EngineFlags& flags, const engine::LoadedModel& loaded, int64_t context_tokens)
    : options_(engine::single_user_options(loaded, context_tokens)) {
  if (!flags.speculate.empty()) options_.lookup_tokens = lookup_tokens(flags.speculate);
  if (!flags.cache_memory.empty()) options_.cache_bytes = parse_memory(flags.cache_memory, "--cache-memory");
  if (flags.step_tokens > 0) options_.step_tokens = flags.step_tokens;
  options_.int8_cache = flags.int8_cache;
  options_.batch_invariant = flags.batch_invariant;
  if (flags.draft.empty()) return;
  engine::LoadOptions load;
  load.model = flags.draft;
  load.device = loaded.device;
  load.context_tokens = context_tokens;
  draft_ = std::make_unique<engine::LoadedModel>(engine::load_model(load));
  options_.draft = draft_.get();
}

}  // namespace puna::cli
