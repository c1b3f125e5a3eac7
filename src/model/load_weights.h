// From the rows of a checkpoint to weights in memory: dense, or packed where the files hold integers.
#pragma once

#include <cstdint>
#include <optional>

#include "checkpoint/model_source.h"
#include "model/model.h"

namespace puna::model {

/// The integers that the row is held as in memory; nullopt: dense values. Packed are rows stored so, on the CPU, for
/// arithmetic in FP32 or BF16, unless dense weights are asked for.
std::optional<checkpoint::IntegerRow> held_integers(const checkpoint::ModelSource& source, const arch::ParamRow& row,
                                                    const LoadOptions& options);

ops::Weight load_weight(const checkpoint::ModelSource& source, const arch::ParamRow& row, const LoadOptions& options);

}  // namespace puna::model
