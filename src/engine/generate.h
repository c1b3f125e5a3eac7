// One request through an engine that nobody else uses: prompt in, streamed text out.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"

namespace puna::engine {

struct GenerateOptions {
  SamplingParams sampling;
  int64_t max_tokens = 512;
  std::vector<std::string> stop_strings;
  bool ignore_stop_tokens = false;                          // benchmarks and golden continuations
  std::shared_ptr<const grammar::CompiledGrammar> grammar;  // of grammar_vocabulary(); absent: any text
  const std::atomic<bool>* cancel = nullptr;                // looked at in every step
  std::function<void(std::string_view)> on_text;
  std::function<void(int64_t, int64_t)> on_prefill;  // (tokens done, tokens to do)
};

/// Settings of an engine for one request at a time: long steps, a cache that holds `context_tokens` and more.
EngineOptions single_user_options(const LoadedModel& loaded, int64_t context_tokens = 8192);

/// Runs `prompt` and generates after it; what the engine's cache shares with it is not run again.
Generation generate(Engine& engine, const Prompt& prompt, const GenerateOptions& options);

}  // namespace puna::engine
