// How many rows each routed expert got.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "arch/config.h"
#include "ops/moe.h"

namespace puna::engine {

using ExpertRows = std::vector<std::vector<int64_t>>;  // [layers with experts][experts]

ExpertRows no_expert_rows(const arch::TextConfig& config);

/// Adds those of one or several whole passes through the model, as ops::ObservingRoutes finds them.
void add_expert_rows(ExpertRows& rows, std::span<const ops::Routing> routes);

}  // namespace puna::engine
