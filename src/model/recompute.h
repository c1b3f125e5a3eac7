// Activation recomputation: a block keeps its input alone and is computed again in backward.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <vector>

namespace puna::model {

/// Outputs of a block for its input. `again`: the call is from backward, so that nothing may be counted.
using Block = std::function<std::vector<at::Tensor>(const at::Tensor& x, bool again)>;

/// block(x, false), whose graph is dropped; backward calls block(x, true) and differentiates that. `weights` are the
/// trainable leaves that the block reads. The block must compute the same both times, and what it refers to must live
/// until backward is done.
std::vector<at::Tensor> recomputed(const at::Tensor& x, const std::vector<at::Tensor>& weights, Block block);

}  // namespace puna::model
