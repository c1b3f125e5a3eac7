// Pictures of training runs.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "plot/figure.h"
#include "plot/run_metrics.h"

namespace puna::plot {

struct ChartKind {
  std::string name;  // as the command line calls it
  std::string what;  // one line for people
};
const std::vector<ChartKind>& chart_kinds();

/// Panels of the kinds asked for; of all that there is data for when `kinds` is empty. Runs share the panels of curves
/// and have heat maps of their own. `smoothing` as in Series, for training losses. Throws Error for an unknown kind,
/// for one without data, and when there is no data at all.
Figure chart_runs(std::span<const RunMetrics> runs, const std::vector<std::string>& kinds, double smoothing);

}  // namespace puna::plot
