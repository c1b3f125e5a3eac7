// Flags of the engine that several commands share, and the engine's settings made of them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/engine.h"

namespace CLI {
class App;
}

namespace puna::cli {

struct EngineFlags {
  std::string speculate, draft, cache_memory;
  int64_t step_tokens = 0;
  bool int8_cache = false, batch_invariant = false;
};

/// --speculate, --draft, --cache-memory, --step-tokens, --int8-cache, --batch-invariant.
void add_engine_options(CLI::App& command, EngineFlags& flags);

/// The engine's settings, and the draft model that they point to.
class EngineSetup {
 public:
  /// `context_tokens` are those of a usual sequence. Loads the draft model.
  EngineSetup(const EngineFlags& flags, const engine::LoadedModel& loaded, int64_t context_tokens);
  engine::EngineOptions& options() { return options_; }
  const engine::EngineOptions& options() const { return options_; }

 private:
  engine::EngineOptions options_;
  std::unique_ptr<engine::LoadedModel> draft_;
};

}  // namespace puna::cli
