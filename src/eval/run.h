// Runs a task on a model: every item's outcome, and what they come to.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/loaded_model.h"
#include "eval/stats.h"
#include "eval/task.h"

namespace puna::eval {

struct RunOptions {
  double temperature = 0;  // 0: greedy
  uint64_t seed = 0;       // of sampling (each item draws with seed + its number), and of the bootstrap
  const std::atomic<bool>* cancel = nullptr;
  std::function<void(int64_t)> on_progress;  // items done
};

/// What came of one item. Likelihoods are natural logarithms.
struct Outcome {
  const Item* item = nullptr;
  std::string answer;                   // generated, or the chosen choice
  bool right = false;                   // by the item's own score
  bool right_raw = false;               // multiple_choice: the likeliest choice
  bool right_per_byte = false;          // multiple_choice: the likeliest per byte of the choice
  std::vector<double> log_likelihoods;  // multiple_choice: of each choice; generated: of the answer's tokens
  double nll = 0;                       // perplexity
  int64_t tokens = 0;                   // generated, or scored (perplexity)
  int64_t bytes = 0;                    // scored (perplexity)
};

struct Measure {
  std::string name;  // "accuracy", "accuracy_raw", "accuracy_normalised", "bits_per_byte", ...
  double value = 0;
  std::optional<Interval> interval;  // 95 %; perplexity has none with fewer than two items
};

struct TaskResult {
  const Task* task = nullptr;
  std::vector<Outcome> outcomes;
  std::vector<Measure> measures;  // the one that the threshold is about comes first; none without outcomes
  double seconds = 0;
  std::exception_ptr error;  // an Error that ended the task early

  bool partial() const { return outcomes.size() < task->items.size(); }
  /// nullopt without a threshold or without outcomes.
  std::optional<bool> met() const;
};

/// The result holds pointers into `task`. After a cancel, or an item that the model cannot take (context, images; the
/// result's error names file and line), it holds the items that were done.
TaskResult run_task(const engine::LoadedModel& loaded, const Task& task, const RunOptions& options);

/// Throws Error, naming file and line, for the first item whose prompt is longer than the model's context, or that has
/// images which it cannot take; so that a long run does not end there. Prompts with images are not measured.
void check_fits(const engine::LoadedModel& loaded, const Task& task);

/// Whether a generated answer is right for an item of kind exact_match, contains or numeric.
bool grade(const Item& item, std::string_view answer);

/// Tokens that a run of the task needs room for at once, estimated before anything is loaded.
int64_t context_estimate(const Task& task);

}  // namespace puna::eval
