#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "base/error.h"

namespace puna::train {

bool is_decayed(const arch::ParamRow& row) {
  return row.kind != arch::ParamKind::kNorm && row.name.find("norm") == std::string::npos &&
         !row.name.ends_with(".bias");
}

void AdamW::add(const std::string& name, at::Tensor weight, bool decayed) {
  at::Tensor m = at::zeros_like(weight), v = at::zeros_like(weight);
  parameters_[name] = {.weight = std::move(weight), .decayed = decayed, .m = std::move(m), .v = std::move(v)};
}

void AdamW::step(const std::map<std::string, at::Tensor>& gradients, double learning_rate, double scale,
                 const OptimizerConfig& config) {
  const c10::NoGradGuard no_grad;
  struct Group {
    std::vector<at::Tensor> weights, grads, m, v, steps;
  };
  std::map<std::pair<bool, double>, Group> groups;  // by decayed and rate
  for (auto& [name, parameter] : parameters_) {
    const auto found = gradients.find(name);
    if (found == gradients.end()) continue;
    ++parameter.steps;
    Group& group = groups[{parameter.decayed, parameter.rate}];
    group.weights.push_back(parameter.weight);
    group.grads.push_back(found->second);
    group.m.push_back(parameter.m);
    group.v.push_back(parameter.v);
    group.steps.push_back(at::scalar_tensor(static_cast<double>(parameter.steps), at::kFloat));
  }
  for (auto& [kind, group] : groups) {
    const auto [decayed, rate] = kind;
    if (scale != 1) at::_foreach_mul_(group.grads, scale);
    at::_fused_adamw_(group.weights, group.grads, group.m, group.v, /*max_exp_avg_sqs=*/{}, group.steps,
                      learning_rate * rate, config.beta1, config.beta2, decayed ? config.weight_decay : 0,
                      config.epsilon, /*amsgrad=*/false, /*maximize=*/false);
  }
}

void AdamW::reset() {
  for (auto& [name, parameter] : parameters_) {
    parameter.m.zero_();
    parameter.v.zero_();
    parameter.steps = 0;
  }
}

double global_norm(const std::map<std::string, at::Tensor>& tensors) {
  constexpr int64_t kPiece = int64_t{1} << 24;  // a sum in FP32 of many more stops growing
  const c10::NoGradGuard no_grad;
  double sum = 0;
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor values = tensor.reshape({-1});
    for (int64_t begin = 0; begin < values.numel(); begin += kPiece) {
      const double norm = at::norm(values.narrow(0, begin, std::min(kPiece, values.numel() - begin))).item<double>();
      sum += norm * norm;
    }
  }
  return std::sqrt(sum);
}

}  // namespace puna::train
