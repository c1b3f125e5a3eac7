// From the rows of a checkpoint to weights in memory: dense, or packed where the files hold integers.
#pragma once

#include <cstdint>
#include <optional>

#include "checkpoint/model_source.h"
#include "experts/store.h"
#include "model/model.h"

namespace puna::model {

/// The integers that the row is held as in memory; nullopt: dense values. Packed are rows stored so, on the CPU, for
/// arithmetic in FP32 or BF16, unless dense weights are asked for.
std::optional<checkpoint::IntegerRow> held_integers(const checkpoint::ModelSource& source, const arch::ParamRow& row,
                                                    const LoadOptions& options);

/// The store of a packed file's routed experts; null when all of them are to be in memory, or none is packed. Throws
/// Error when `options.expert_bytes` are too few.
std::shared_ptr<experts::ExpertStore> open_store(const checkpoint::ModelSource& source, const LoadOptions& options);

/// `store`: as open_store() gave it.
ops::Weight load_weight(const checkpoint::ModelSource& source, const arch::ParamRow& row, const LoadOptions& options,
                        const std::shared_ptr<experts::ExpertStore>& store);

}  // namespace puna::model
