// A layer of experts: every token through the shared one and through those that it is routed to (SPEC 3).
#pragma once

#include <ATen/ATen.h>

#include <functional>

#include "ops/moe.h"
#include "ops/weight.h"

namespace puna::ops {

/// The weights of such a layer: gate, up [F, D] and down [D, F] of the shared expert; gate_up [E, D, 2F] and down
/// [E, F, D] of the routed ones.
struct ExpertWeights {
  const Weight *shared_gate, *shared_up, *shared_down;
  const Weight *gate_up, *down;
  /// Called once the experts that are needed cannot be given up any more, to say what will be needed next; may be
  /// empty.
  std::function<void()> read_ahead = {};
};

/// x [T, D] -> shared(x) + sum over each token's experts of expert(score x), or of score expert(x).
at::Tensor experts(const at::Tensor& x, const Routing& routing, const ExpertWeights& weights, bool score_on_input);

}  // namespace puna::ops
