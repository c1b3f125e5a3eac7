// One checkpoint onto the disk, whole or not at all, and older ones away. Private to src/train/checkpoint*.cc.
#pragma once

#include <cstdint>

#include "train/checkpoint.h"

namespace puna::train::internal {

/// What it takes on disk, a few per cent and blocks more than its files have.
int64_t needed_bytes(const Checkpoint& checkpoint);
/// Throws Error when the disk lacks the space that `checkpoint` needs.
void check_free_space(const std::filesystem::path& dir, const Checkpoint& checkpoint);

/// Writes <dir>/step-XXXXXXXX under another name, renames it, then writes `latest`, then prunes. A checkpoint of the
/// same step is replaced. Tensors are contiguous and on the CPU. Throws Error with nothing left of the new one, older
/// ones intact.
void write_checkpoint(const CheckpointOptions& options, const Checkpoint& checkpoint);

/// Removes what killed runs left half-written or half-removed, and puts back a checkpoint that was being replaced.
void remove_left_overs(const std::filesystem::path& dir);

}  // namespace puna::train::internal
