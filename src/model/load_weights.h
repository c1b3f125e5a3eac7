// From the rows of a checkpoint to weights in memory: dense, or packed as the kernels multiply them.
#pragma once

#include <cstdint>
#include <optional>

#include "checkpoint/model_source.h"
#include "experts/store.h"
#include "model/model.h"

namespace puna::model {

/// The integers, or the FP8 bits, that the row is held as in memory; nullopt: other values. Packed are rows stored so,
/// on the CPU, for arithmetic in FP32 (integers) or BF16, unless dense weights are asked for.
std::optional<checkpoint::IntegerRow> held_integers(const checkpoint::ModelSource& source, const arch::ParamRow& row,
                                                    const LoadOptions& options);

/// Whether dense values of the row are held in tiles: BF16 that is multiplied, on a CPU without AMX, whose tiles
/// LibTorch uses and no kernel here.
bool held_in_tiles(const arch::ParamRow& row, const LoadOptions& options);

/// The store of a packed file's routed experts; null when all of them are to be in memory, or none is packed. Throws
/// Error when `options.expert_bytes` are too few.
std::shared_ptr<experts::ExpertStore> open_store(const checkpoint::ModelSource& source, const LoadOptions& options);

/// `store`: as open_store() gave it.
ops::Weight load_weight(const checkpoint::ModelSource& source, const arch::ParamRow& row, const LoadOptions& options,
                        const std::shared_ptr<experts::ExpertStore>& store);

}  // namespace puna::model
