#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace puna::train {

double learning_rate(const ScheduleConfig& schedule, double peak, int64_t step, int64_t steps) {
  const int64_t warmup = schedule.warmup_steps;
  if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  if (schedule.kind == "constant") return peak;
  const int64_t first = schedule.kind == "wsd" ? std::max(warmup, steps - schedule.decay_steps) : warmup;
  if (step < first) return peak;
  // 0 at the first step of the decay, 1 at the last step of all.
  const int64_t span = steps - 1 - first;
  const double done = span > 0 ? static_cast<double>(step - first) / static_cast<double>(span) : 1;
  const double low = schedule.final_fraction;
  if (schedule.kind == "cosine") return peak * (low + (1 - low) * 0.5 * (1 + std::cos(std::numbers::pi * done)));
  return peak * (1 - (1 - low) * done);
}

}  // namespace puna::train
