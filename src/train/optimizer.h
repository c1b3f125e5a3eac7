// AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), keyed by parameter name.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cstdint>
#include <map>
#include <string>

#include "arch/parameters.h"
#include "train/recipe.h"

namespace puna::train {

/// Norms and biases are not decayed.
bool is_decayed(const arch::ParamRow& row);

class AdamW {
 public:
  /// One trained parameter: its master weights, updated in place.
  struct Parameter {
    at::Tensor weight;  // fp32 or fp64
    bool decayed;
    at::Tensor m, v;    // like weight
    double rate = 1;    // times the learning rate
    int64_t steps = 0;  // updates so far: those of the bias correction
  };

  void add(const std::string& name, at::Tensor weight, bool decayed);

  /// Updates the parameters that have a gradient; the others, moments included, stay as they are. `scale` multiplies
  /// the gradients first (clipping).
  void step(const std::map<std::string, at::Tensor>& gradients, double learning_rate, double scale,
            const OptimizerConfig& config);
  void reset();

  const std::map<std::string, Parameter>& parameters() const { return parameters_; }
  std::map<std::string, Parameter>& parameters() { return parameters_; }

 private:
  std::map<std::string, Parameter> parameters_;
};

/// Root of the sum of squares over all tensors: the norm of each in its own dtype, those summed in fp64 in name order.
double global_norm(const std::map<std::string, at::Tensor>& tensors);

}  // namespace puna::train
