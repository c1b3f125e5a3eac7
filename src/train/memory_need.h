// What a run takes in memory, by formula from its recipe and config alone. Internal to src/train.
#pragma once

#include <cstdint>
#include <string_view>

#include "arch/config.h"
#include "train/recipe.h"

namespace puna::train {

/// Bytes. What no stage learns has neither gradient nor moments.
struct MemoryNeed {
  int64_t weights = 0;      // masters, and the copies that bfloat16 computes with
  int64_t gradients = 0;    // of the stage that learns most
  int64_t moments = 0;      // AdamW's, of all that some stage learns
  int64_t snapshot = 0;     // the copy that a checkpoint is written from
  int64_t activations = 0;  // what the text model keeps of a micro-batch for backward, at least

  int64_t fixed() const { return weights + gradients + moments + snapshot; }
  int64_t total() const { return fixed() + activations; }
};
MemoryNeed memory_need(const Recipe& recipe, const arch::Llama4Config& config);

/// Throws Error(`where`) when `need` is more than `available` bytes: what is needed for what, what is free, what helps.
void check_memory(const MemoryNeed& need, int64_t available, std::string_view where);

}  // namespace puna::train
