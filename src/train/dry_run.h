// What a recipe will take: what can be counted, and what a few steps of a small part of it tell.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "train/recipe.h"

namespace puna::train {

struct DryRun {
  int64_t parameters = 0, active_parameters = 0;
  int64_t program_bytes = 0;  // of the process itself, LibTorch for the most part
  int64_t weight_bytes = 0;   // masters, and the copies that bfloat16 computes with
  int64_t gradient_bytes = 0;
  int64_t optimizer_bytes = 0;   // AdamW's moments
  int64_t activation_bytes = 0;  // of the largest micro-batch of any stage: measured, else the least
  int64_t snapshot_bytes = 0;    // the copy that a checkpoint is written from
  int64_t data_bytes = 0;        // datasets that are built; mapped, so that the system may drop them
  int64_t available_bytes = 0;
  struct Stage {
    std::string name;
    int64_t steps = 0;
    double tokens = 0, flops = 0;   // of a step, mean; counted
    double seconds = 0;             // of a step, mean; measured
    double validation_seconds = 0;  // of all measurements in the stage
  };
  std::vector<Stage> stages;
  double preparation_seconds = 0;     // of tokenizer and datasets
  std::vector<std::string> warnings;  // settings without an effect
  std::exception_ptr refused;         // the Error that the run would end with; what it kept from being known is 0

  int64_t total_bytes() const {
    return program_bytes + weight_bytes + gradient_bytes + optimizer_bytes + activation_bytes + snapshot_bytes +
           data_bytes;
  }
  double steps_seconds() const;
  double validation_seconds() const;
  /// Of preparation, steps and validation; without loading, checkpoints and the exported model.
  double total_seconds() const { return preparation_seconds + steps_seconds() + validation_seconds(); }
  std::string counted_text() const;   // what is known before anything is allocated
  std::string measured_text() const;  // the rest
  Json json() const;
};

/// Encodes the first documents of every source in a temporary directory and times a few steps on them, of the whole
/// model when it is shallow, else of two shallower ones of the same width, from which the rest follows by a straight
/// line. Where the run would be refused, as with `check` when it does not fit in memory (memory_need.h), that is in
/// `refused` beside all that was counted before. `on_counted` gets what is known before any of the model is allocated.
/// Throws Error for a model that cannot be made, and Interrupted once `interrupt` is set.
DryRun dry_run(const Recipe& recipe, const std::function<void(const DryRun&)>& on_counted = {},
               const std::atomic<bool>* interrupt = nullptr, bool check = true);

}  // namespace puna::train
