#include "engine/expert_rows.h"

#include <algorithm>

#include "arch/layer_plan.h"
#include "base/error.h"

namespace puna::engine {

ExpertRows no_expert_rows(const arch::TextConfig& config) {
  const auto plans = arch::layer_plan(config);
  const auto layers = std::count_if(plans.begin(), plans.end(), [](const auto& plan) { return plan.moe; });
  return ExpertRows(static_cast<size_t>(layers), std::vector<int64_t>(static_cast<size_t>(config.num_local_experts)));
}

void add_expert_rows(ExpertRows& rows, std::span<const ops::Routing> routes) {
  PUNA_CHECK(rows.empty() ? routes.empty() : routes.size() % rows.size() == 0, "{} routings of {} layers",
             routes.size(), rows.size());
  for (size_t i = 0; i < routes.size(); ++i) {
    std::vector<int64_t>& layer = rows[i % rows.size()];
    const std::vector<int64_t>& offsets = routes[i].offsets;
    for (size_t e = 0; e < layer.size(); ++e) layer[e] += offsets[e + 1] - offsets[e];
  }
}

}  // namespace puna::engine
