// The learning rate by step.
#pragma once

#include <cstdint>

#include "train/recipe.h"

namespace puna::train {

/// Of step `step` (from 0) of `steps`: a straight line up over the warmup (step 0 is peak / warmup), then by kind down
/// to final_fraction of the peak at the last step.
double learning_rate(const ScheduleConfig& schedule, double peak, int64_t step, int64_t steps);

}  // namespace puna::train
