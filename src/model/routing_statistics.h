// Counting where a layer's routed rows go.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "model/training.h"
#include "ops/moe.h"

namespace puna::model {

/// Adds one forward of a layer: its router's logits [T, E] and where they led. `token_ids` [T] tell image tokens from
/// others; `biased`: a selection bias was in force.
void add_statistics(RoutingStatistics& statistics, const at::Tensor& logits, const ops::Routing& routing,
                    const std::vector<int64_t>& token_ids, int64_t patch_token, bool biased);

}  // namespace puna::model
