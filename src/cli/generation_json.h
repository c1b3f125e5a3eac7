// What was generated, as JSON.
#pragma once

#include <vector>

#include "base/json.h"
#include "engine/request.h"

namespace puna::cli {

/// text, tokens, stop_reason, stop, and logprobs when there are any.
Json generation_json(const engine::LoadedModel& loaded, const engine::Generation& generation);

/// prompt_tokens, completion_tokens (of all completions), total_tokens.
Json usage_json(const std::vector<engine::Generation>& completions);

/// One entry per sample: token, text, logprob, and the alternatives under "top".
Json logprobs_json(const engine::LoadedModel& loaded, const std::vector<engine::Sample>& samples);

}  // namespace puna::cli
