// What a recipe will take, found out by a few steps of a small part of it.
#pragma once

#include <atomic>
#include <cstdint>
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
  int64_t activation_bytes = 0;  // of the largest micro-batch of any stage, measured
  int64_t snapshot_bytes = 0;    // the copy that a checkpoint is written from
  int64_t available_bytes = 0;
  struct Stage {
    std::string name;
    int64_t steps;
    double tokens;   // of a step, mean
    double flops;    // of a step, mean
    double seconds;  // of a step, mean, measured
  };
  std::vector<Stage> stages;
  std::vector<std::string> warnings;  // settings without an effect

  int64_t total_bytes() const {
    return program_bytes + weight_bytes + gradient_bytes + optimizer_bytes + activation_bytes + snapshot_bytes;
  }
  double total_seconds() const;
  std::string text() const;
  Json json() const;
};

/// Encodes the first documents of every source in a temporary directory and times a few steps on them, of the whole
/// model when it is shallow, else of two shallower ones of the same width, from which the rest follows by a straight
/// line. Throws Error before that when `check` is set and the run does not fit in memory (memory_need.h), and
/// Interrupted once `interrupt` is set.
DryRun dry_run(const Recipe& recipe, const std::atomic<bool>* interrupt = nullptr, bool check = true);

}  // namespace puna::train
