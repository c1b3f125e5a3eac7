// What a run tells: metrics.jsonl (the same bytes for the same run, however often it was stopped), timing.jsonl
// (times), TensorBoard events, outliers.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "io/descriptor.h"
#include "train/balance.h"
#include "train/batches.h"
#include "train/event_file.h"
#include "train/learner.h"

namespace puna::train {

/// How far a value lies above the recent ones, in their standard deviations.
class OutlierDetector {
 public:
  static constexpr size_t kWindow = 128, kFewest = 32;
  /// The z-score of `value` against the values before it (0 while there are fewer than kFewest); then remembers it.
  double push(double value);
  Json state() const;
  void restore(const Json& state);

 private:
  std::deque<double> values_;
};

/// Everything of one step that is to be told.
struct StepReport {
  int64_t step = 0;  // from 1, over all stages
  int64_t total_steps = 0;
  std::string stage;
  StepResult result;
  std::vector<LayerLoad> loads;
  double learning_rate = 0;
  int64_t tokens = 0;      // of this step
  int64_t all_tokens = 0;  // of the run so far
  int64_t targets = 0, images = 0;
  double loss_z = 0, norm_z = 0;
  bool loss_outlier = false, norm_outlier = false;
  double seconds = 0, data_wait_seconds = 0, flops = 0, mfu = 0;
  std::vector<std::string> warnings;
  std::map<std::string, LossSum> validation;  // by source; empty when nothing was measured after this step
};

/// Judges loss and gradient norm of a step, each on its own. One without targets is neither judged nor remembered.
void judge(StepReport& report, double outlier_z, OutlierDetector& losses, OutlierDetector& norms);

/// The deterministic part: one line of metrics.jsonl, without the line end.
std::string metrics_line(const StepReport& report, const std::vector<std::string>& source_names, bool details);

class RunLog {
 public:
  /// Appends to the files in `dir`. `metrics_bytes` of metrics.jsonl are kept, what follows is cut off (a resumed run
  /// writes it again, from `first_step` on); Error when the file is shorter.
  RunLog(const std::filesystem::path& dir, int64_t metrics_bytes, int64_t first_step = 0);

  void write(const StepReport& report, const std::vector<std::string>& source_names, bool details);
  int64_t metrics_bytes() const { return metrics_bytes_; }
  /// Until what was written is on disk: a checkpoint must not be older news than the metrics it counts on.
  void sync() const;

 private:
  std::filesystem::path dir_;
  io::Descriptor metrics_, timing_;
  int64_t metrics_bytes_ = 0;
  EventFile events_;
};

}  // namespace puna::train
