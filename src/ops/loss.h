// Losses over logits.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace puna::ops {

constexpr int64_t kIgnoredTarget = -100;

/// Mean over the targets that are not kIgnoredTarget of -log softmax(logits)[target], in fp32 (SPEC 3, loss).
/// logits [T, V], targets [T] int64, already shifted: targets[t] is what follows token t. Throws Error when every
/// target is ignored.
at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& targets);

/// The targets of one sequence's labels [T]: labels[t + 1] at t, kIgnoredTarget at the end.
at::Tensor shifted_targets(const at::Tensor& labels);

}  // namespace puna::ops
