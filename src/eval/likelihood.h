// Log-likelihood of given continuations of a prompt.
#pragma once

#include <optional>
#include <span>

#include "engine/sequence.h"

namespace puna::eval {

/// log p(continuation | prompt), natural logarithm: the sum over its tokens, of which there is at least one. What the
/// sequence already holds of the prompt is reused, so that continuations of one prompt cost only themselves. nullopt
/// when cancelled. Throws Error for a prompt beyond the context and for logits that are not finite.
std::optional<double> log_likelihood(engine::Sequence& sequence, const engine::Prompt& prompt,
                                     std::span<const engine::TokenId> continuation,
                                     const std::atomic<bool>* cancel = nullptr);

}  // namespace puna::eval
