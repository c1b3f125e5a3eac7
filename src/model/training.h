// What a training forward takes and gives beside the tokens: routing bias and statistics, recomputation.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace puna::model {

/// Where the routed rows of one layer went, summed over forward passes; recomputation does not count again.
struct RoutingStatistics {
  std::vector<int64_t> expert_rows;        // [E]
  std::vector<int64_t> expert_image_rows;  // [E] those of image tokens
  double entropy_sum = 0;                  // over tokens, of softmax(router logits), nats
  int64_t bias_flips = 0;                  // tokens whose experts are others than without the bias
  int64_t tokens = 0;
};

/// Given to Model::hidden for one forward with gradients.
struct TrainingPass {
  // In. [layers]: undefined for dense layers, else [E] fp32, added to sigmoid(logits) for the choice alone.
  std::vector<at::Tensor> selection_bias;
  bool recompute = false;          // keep only the blocks' inputs, compute the blocks again in backward
  double load_balance_weight = 0;  // of E * sum_e f_e P_e, P_e the mean of scores normalised over the experts
  double router_z_weight = 0;      // of the mean of logsumexp(logits)^2
  // Out. Both are added to by every forward; the loss is defined after the first, 0 where nothing asks for it.
  std::vector<RoutingStatistics> routing;  // [layers]; empty vectors inside for dense layers
  at::Tensor auxiliary_loss;               // scalar with gradient: sum over layers, weights applied, mean over tokens
};

}  // namespace puna::model
