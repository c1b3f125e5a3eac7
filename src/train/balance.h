// Keeping experts in use: the selection bias without an auxiliary loss (arXiv 2408.15664), loads, dead experts.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "model/training.h"
#include "train/recipe.h"

namespace puna::train {

/// Moves the bias [E] of experts under the mean load up by `rate`, of those over it down, then makes its mean zero.
/// Once per optimizer step, with the rows of all its tokens on all ranks.
void update_selection_bias(at::Tensor& bias, const std::vector<int64_t>& expert_rows, double rate);

/// Of one layer and step, for people and metrics.
struct LayerLoad {
  int layer;
  std::vector<double> load;         // [E] shares of the routed rows
  std::vector<double> image_share;  // [E] share of an expert's rows that are image tokens; empty without images
  double router_entropy;            // mean over tokens, nats
  double load_entropy;              // of `load`, nats
  double max_violation;             // greatest load over the even one, minus 1
  double bias_flips;                // share of tokens that go elsewhere without the bias
};
std::vector<LayerLoad> layer_loads(const std::vector<model::RoutingStatistics>& routing);
Json to_json(const LayerLoad& load);

/// Tells of experts that get almost nothing for many steps in a row.
class DeadExperts {
 public:
  /// Warnings of this step: one for each layer whose dead experts are others than when it was last told.
  std::vector<std::string> update(const std::vector<LayerLoad>& loads, const BalanceConfig& config);
  Json state() const;
  void restore(const Json& state);

 private:
  struct Layer {
    std::vector<int64_t> steps_dead;
    std::vector<int64_t> told;
  };
  std::map<int, Layer> layers_;
};

}  // namespace puna::train
