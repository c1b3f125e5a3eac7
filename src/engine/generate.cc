#include "engine/generate.h"

#include <algorithm>

namespace puna::engine {

EngineOptions single_user_options(const LoadedModel& loaded, int64_t context_tokens) {
  EngineOptions options;
  options.step_tokens = 2048;
  const int64_t longest = loaded.config().text.max_position_embeddings;
  options.context_tokens = longest > 0 ? std::min(context_tokens, longest) : context_tokens;
  return options;
}

Generation generate(Engine& engine, const Prompt& prompt, const GenerateOptions& options) {
  Request request;
  request.prompt = prompt;
  request.sampling = options.sampling;
  request.max_tokens = options.max_tokens;
  request.stop_strings = options.stop_strings;
  request.ignore_stop_tokens = options.ignore_stop_tokens;
  request.grammar = options.grammar;
  request.cancel = options.cancel;
  if (options.on_text) request.on_text = [&](int, std::string_view text) { options.on_text(text); };
  request.on_prefill = options.on_prefill;
  return engine.run(*engine.submit(std::move(request))).completions.at(0);
}

}  // namespace puna::engine
