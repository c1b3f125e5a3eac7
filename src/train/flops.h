// How much arithmetic a step is, and how much of it this machine can do.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "arch/config.h"
#include "train/batches.h"

namespace puna::train {

/// Forward and backward of a step: 3 times the forward. A forward is 2 per active parameter in a matmul and token (the
/// head: per target), 4 H K per query and visible key, and the vision tower per tile. Recomputation does not count.
double step_flops(const arch::Llama4Config& config, const StepBatch& batch);
/// One tile through the vision tower, adapter and projector; forward.
double tile_flops(const arch::Llama4Config& config);

/// The fastest square matmul of this dtype that this machine reaches with its present threads, operations per second.
double measured_peak_flops(at::ScalarType dtype);

}  // namespace puna::train
