// The optimizer step: forward and backward over micro-batches, reduction over ranks, checks, clipping, AdamW, balance.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "arch/config.h"
#include "arch/layer_plan.h"
#include "base/error.h"
#include "model/model.h"
#include "parallel/comm.h"
#include "train/batches.h"
#include "train/optimizer.h"
#include "train/recipe.h"

namespace puna::train {

/// Sums over the targets of a step, by some key.
struct LossSum {
  double nll = 0;  // nats
  int64_t targets = 0;
};

struct StepResult {
  double loss = 0;                                // mean NLL of the targets, without auxiliary losses; nats
  double auxiliary_loss = 0;                      // as added to it
  double grad_norm = 0;                           // before clipping
  std::vector<model::RoutingStatistics> routing;  // [layers]
  std::vector<LossSum> by_source;
  std::vector<LossSum> by_position;  // [i]: positions 2^i to 2^(i+1) - 1, the first also 0
};

/// Of a batch that is not finite: how many documents the error names.
inline constexpr size_t kMaxShownDocuments = 12;

/// Stopped before the optimizer step; weights and moments are those of the step before. what() says the first offending
/// tensor and the batch's first documents. Or stopped before a save, of weights that the last update has spoiled.
class NotFinite : public Error {
 public:
  explicit NotFinite(const std::string& reason) : Error("train", reason), reason_(reason) {}
  /// what() without the place.
  const std::string& reason() const { return reason_; }

 private:
  std::string reason_;
};

/// One sum over the tensor, as long as that is finite itself.
bool all_finite(const at::Tensor& tensor);

/// Whether a stage with this list does not change the parameter.
bool is_frozen(const arch::ParamRow& row, const std::vector<std::string>& freeze);

class Learner {
 public:
  /// `masters`: every weight of the model by Puna's name, fp32 or fp64, updated in place. `compute` is the dtype of
  /// forward and backward.
  Learner(std::map<std::string, at::Tensor> masters, at::ScalarType compute, std::unique_ptr<parallel::Comm> comm);

  /// Builds the model with `config` (the masters' shapes; rope and context may differ from stage to stage) and says
  /// which parts learn. Moments are kept, also of parts that are frozen now.
  void begin_stage(const arch::Llama4Config& config, const StageConfig& stage, bool recompute);

  /// Throws NotFinite. `learning_rate` is this step's.
  StepResult step(const StepBatch& batch, double learning_rate, size_t num_sources, int64_t step_number);

  /// The loss of a batch, without gradients; nothing changes, no statistic either. Of the model that is exported: no
  /// selection bias takes part.
  LossSum evaluate(const StepBatch& batch) const;

  const model::Model& model() const { return *model_; }
  const std::map<std::string, at::Tensor>& masters() const { return masters_; }
  AdamW& optimizer() { return optimizer_; }
  /// [layers] [E] fp32, undefined for dense layers; empty without bias balancing.
  std::map<int, at::Tensor>& selection_bias() { return bias_; }

 private:
  void run_micro_batch(const MicroBatch& micro, const StepBatch& batch, int64_t total_targets, StepResult& result);
  void fold_gradients();
  void reduce_gradients();
  void reduce_statistics(StepResult& result);
  [[noreturn]] void report_not_finite(const StepBatch& batch, int64_t step_number, double loss);
  std::string first_offender(const StepBatch& batch);
  model::TrainingPass new_pass() const;
  model::Batch batch_of(const MicroBatch& micro) const;
  std::string first_bad_activation(const MicroBatch& micro) const;

  std::map<std::string, at::Tensor> masters_;
  at::ScalarType compute_;
  std::unique_ptr<parallel::Comm> comm_;
  AdamW optimizer_;
  std::map<int, at::Tensor> bias_;
  StageConfig stage_;
  bool recompute_ = false;
  std::unique_ptr<model::Model> model_;
  std::vector<arch::ParamRow> rows_;
  std::map<std::string, at::Tensor> gradients_;  // of this step, fp32 or fp64
};

}  // namespace puna::train
