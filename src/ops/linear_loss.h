// The head and the loss in one: log-probabilities of targets without ever holding all logits.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "ops/weight.h"

namespace puna::ops {

/// All three are differentiable, fp32 (fp64 for fp64 input). Rows whose target is kIgnoredTarget are 0 everywhere.
struct TargetStatistics {
  at::Tensor log_probs;   // [T] log softmax(logits)[target]
  at::Tensor entropies;   // [T] of softmax(logits), nats; undefined unless asked for
  at::Tensor logsumexps;  // [T]
};

/// logits = x W^T for x [T, D] and the head's weight [V, D], in chunks of rows and vocabulary in forward and backward;
/// at most `buffer_bytes` of logits are held at a time. targets [T] int64, kIgnoredTarget: none.
TargetStatistics linear_log_probs(const at::Tensor& x, const Weight& head, const at::Tensor& targets,
                                  bool want_entropies = false, int64_t buffer_bytes = int64_t{128} << 20);

}  // namespace puna::ops
