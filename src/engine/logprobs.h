// Log-probabilities of tokens that were given, not drawn.
#pragma once

#include <span>

#include "engine/sampler.h"

namespace puna::engine {

/// Of token `id` under logits [V], and of the `alternatives` most probable tokens, best first. Natural logarithm.
Sample logprobs_of(std::span<const float> logits, TokenId id, int alternatives);

}  // namespace puna::engine
