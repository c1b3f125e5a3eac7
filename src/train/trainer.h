// A whole run: stages of steps, checkpoints, resuming, the exported model.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <string>

#include "train/metrics.h"
#include "train/recipe.h"

namespace puna::train {

struct TrainOptions {
  bool check_memory = true;                      // an Error before data are built when the run would not fit
  bool resume = false;                           // go on from the newest checkpoint; else the run directory must be new
  const std::atomic<bool>* interrupt = nullptr;  // looked at between records, tokens and steps
  std::function<void(const StepReport&)> on_step;
  std::function<void(const std::string&)> on_note;  // warnings and what is being done, for people
  int64_t stop_after = 0;                           // steps of this process; 0: no limit
};

enum class Outcome { kFinished, kInterrupted };

/// Runs the recipe in its run directory:
///   recipe.json  metrics.jsonl  timing.jsonl  events.out.tfevents.*  data/  tokenizer/  checkpoints/  model/
/// `model/` is the trained model in Hugging Face layout, written at the end. An interrupted run is saved first. Throws
/// Error, NotFinite among them; the last checkpoint is intact then.
Outcome train(const Recipe& recipe, const TrainOptions& options);

}  // namespace puna::train
