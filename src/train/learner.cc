#include "train/learner.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <type_traits>

#include "base/error.h"
#include "checkpoint/tensor_models.h"
#include "ops/linear_loss.h"
#include "train/balance.h"

namespace puna::train {
namespace {

bool is_vision(const arch::ParamRow& row) {
  return row.kind == arch::ParamKind::kVision || row.kind == arch::ParamKind::kProjector;
}

// The internals of a forward in the order in which they are computed.
std::vector<std::string> trace_order(int64_t num_layers) {
  std::vector<std::string> names = {"embeds"};
  for (int64_t i = 0; i < num_layers; ++i)
    for (const char* part : {"q", "k", "v", "attn_out", "router_logits", "router_scores", "ffn_out", "out"})
      names.push_back(fmt::format("layers.{}.{}", i, part));
  names.emplace_back("final_norm");
  return names;
}

std::vector<std::string> vision_trace_order(int64_t num_layers) {
  std::vector<std::string> names = {"patch_embedding", "layernorm_pre"};
  for (int64_t i = 0; i < num_layers; ++i)
    for (const char* part : {"attn_out", "out"}) names.push_back(fmt::format("layers.{}.{}", i, part));
  for (const char* name : {"layernorm_post", "pixel_shuffled", "adapter_out", "projected"}) names.emplace_back(name);
  return names;
}

// The first of `names` whose tensor is not finite; "" when all are.
std::string first_not_finite(const model::Trace& trace, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const auto found = trace.find(name);
    if (found != trace.end() && found->second.is_floating_point() && !all_finite(found->second)) return name;
  }
  return "";
}

}  // namespace

bool all_finite(const at::Tensor& tensor) {
  return at::isfinite(tensor.detach().sum()).item<bool>() || at::isfinite(tensor.detach()).all().item<bool>();
}

bool is_frozen(const arch::ParamRow& row, const std::vector<std::string>& freeze) {
  using arch::ParamKind;
  const bool vision = is_vision(row);
  for (const std::string& part : freeze) {
    if (part == "vision" && vision) return true;
    if (part == "text" && !vision) return true;
    if (part == "router" && row.kind == ParamKind::kRouter) return true;
    if (part == "embedding" && row.kind == ParamKind::kEmbedding) return true;
  }
  return false;
}

Learner::Learner(std::map<std::string, at::Tensor> masters, at::ScalarType compute,
                 std::unique_ptr<parallel::Comm> comm)
    : masters_(std::move(masters)), compute_(compute), comm_(std::move(comm)) {}

void Learner::begin_stage(const arch::Llama4Config& config, const StageConfig& stage, bool recompute) {
  stage_ = stage;
  recompute_ = recompute;
  rows_ = arch::parameter_table(config);
  model_ = model::Model::load(*checkpoint::tensors_model(config, masters_),
                              {.dtype = compute_, .device = at::kCPU, .weights = model::WeightForm::kDense});
  for (const arch::ParamRow& row : rows_) {
    const bool learns = !is_frozen(row, stage.freeze);
    model_->weights().at(row.name).dense.requires_grad_(learns);
    // A part keeps its moments while it is frozen.
    if (learns && !optimizer_.parameters().contains(row.name))
      optimizer_.add(row.name, masters_.at(row.name), is_decayed(row));
    if (learns) optimizer_.parameters().at(row.name).rate = is_vision(row) ? stage.optimizer.vision_rate : 1;
  }
  if (stage.balance.bias_rate == 0) bias_.clear();
  for (const arch::LayerPlan& plan : arch::layer_plan(config.text))
    if (plan.moe && stage.balance.bias_rate > 0 && !bias_.contains(plan.index))
      bias_[plan.index] = at::zeros({config.text.num_local_experts}, at::kFloat);
}

model::TrainingPass Learner::new_pass() const {
  model::TrainingPass pass;
  pass.recompute = recompute_;
  pass.load_balance_weight = stage_.balance.load_balance_weight;
  pass.router_z_weight = stage_.balance.router_z_weight;
  pass.selection_bias.resize(model_->config().text.num_hidden_layers);
  for (const auto& [layer, bias] : bias_) pass.selection_bias[layer] = bias;
  return pass;
}

model::Batch Learner::batch_of(const MicroBatch& micro) const {
  model::Batch batch;
  batch.tokens = micro.tokens;
  batch.sequence_begin = micro.sequence_begin;
  batch.first_position.assign(micro.sequence_begin.size() - 1, 0);
  batch.output_rows = micro.target_rows;
  if (micro.pixels.defined()) batch.image_features = model_->encode_images(micro.pixels.to(compute_));
  return batch;
}

void Learner::run_micro_batch(const MicroBatch& micro, const StepBatch& batch, int64_t total_targets,
                              StepResult& result) {
  model::TrainingPass pass = new_pass();
  pass.routing = std::move(result.routing);
  const at::Tensor hidden_RD = model_->hidden(batch_of(micro), nullptr, &pass);
  result.routing = std::move(pass.routing);

  at::Tensor loss;
  if (micro.targets.size(0) > 0) {
    const at::Tensor log_probs =
        ops::linear_log_probs(hidden_RD, model_->weights().at("lm_head.weight"), micro.targets).log_probs;
    const at::Tensor values = log_probs.detach().to(at::kDouble).contiguous();
    const double* log_prob = values.const_data_ptr<double>();
    for (int64_t r = 0; r < values.size(0); ++r) {
      const auto bucket = static_cast<size_t>(std::bit_width(static_cast<uint32_t>(micro.target_position[r]) | 1u) - 1);
      if (result.by_position.size() <= bucket) result.by_position.resize(bucket + 1);
      for (LossSum* sum : {&result.by_source[micro.target_source[r]], &result.by_position[bucket]}) {
        sum->nll -= log_prob[r];
        ++sum->targets;
      }
    }
    loss = log_probs.sum() * (-1.0 / static_cast<double>(total_targets));
  }
  if (pass.auxiliary_loss.defined()) {
    const double share = static_cast<double>(micro.tokens.size(0)) / static_cast<double>(batch.num_tokens);
    const at::Tensor auxiliary = pass.auxiliary_loss * share;
    result.auxiliary_loss += auxiliary.item<double>();
    loss = loss.defined() ? loss + auxiliary : auxiliary;
  }
  if (loss.defined() && loss.requires_grad()) loss.backward();
  fold_gradients();
}

// In the masters' own dtype autograd adds micro-batches up itself; narrower ones are added up in fp32.
void Learner::fold_gradients() {
  const c10::NoGradGuard no_grad;
  for (auto& [name, weight] : model_->weights()) {
    at::Tensor& grad = weight.dense.mutable_grad();
    if (!grad.defined()) continue;
    const at::ScalarType wide = masters_.at(name).scalar_type();
    if (grad.scalar_type() == wide) {
      gradients_[name] = grad;
      continue;
    }
    at::Tensor& sum = gradients_[name];
    if (sum.defined())
      sum.add_(grad);
    else
      sum = grad.to(wide);
    grad = at::Tensor();
  }
}

// Sums over the ranks. A parameter that no rank has a gradient of stays untouched.
void Learner::reduce_gradients() {
  at::Tensor has = at::zeros({static_cast<int64_t>(rows_.size())}, at::kLong);
  for (size_t i = 0; i < rows_.size(); ++i) has[static_cast<int64_t>(i)] = gradients_.contains(rows_[i].name) ? 1 : 0;
  comm_->all_reduce_sum(has);
  for (size_t i = 0; i < rows_.size(); ++i) {
    if (has[static_cast<int64_t>(i)].item<int64_t>() == 0) continue;
    at::Tensor& gradient = gradients_[rows_[i].name];
    if (!gradient.defined()) gradient = at::zeros_like(masters_.at(rows_[i].name));
    comm_->all_reduce_sum(gradient);
  }
}

// One fp64 tensor of all losses and counts; a rank without a micro-batch adds zeros.
void Learner::reduce_statistics(StepResult& result) {
  constexpr size_t kMaxBuckets = 32;  // of positions, which are int32
  const arch::TextConfig& text = model_->config().text;
  result.by_position.resize(kMaxBuckets);
  result.routing.resize(text.num_hidden_layers);
  for (const arch::LayerPlan& plan : arch::layer_plan(text))
    if (plan.moe)
      for (auto* rows : {&result.routing[plan.index].expert_rows, &result.routing[plan.index].expert_image_rows})
        rows->resize(text.num_local_experts);
  const auto each = [&](auto&& visit) {
    visit(result.auxiliary_loss);
    for (auto* sums : {&result.by_source, &result.by_position})
      for (LossSum& sum : *sums) visit(sum.nll), visit(sum.targets);
    for (model::RoutingStatistics& layer : result.routing) {
      for (auto* rows : {&layer.expert_rows, &layer.expert_image_rows})
        for (int64_t& count : *rows) visit(count);
      visit(layer.entropy_sum), visit(layer.bias_flips), visit(layer.tokens);
    }
  };
  std::vector<double> values;
  each([&](auto& value) { values.push_back(static_cast<double>(value)); });
  at::Tensor sum = at::tensor(values, at::kDouble);
  comm_->all_reduce_sum(sum);
  const double* next = sum.const_data_ptr<double>();
  each([&](auto& value) { value = static_cast<std::remove_reference_t<decltype(value)>>(*next++); });
  while (!result.by_position.empty() && result.by_position.back().targets == 0) result.by_position.pop_back();
}

StepResult Learner::step(const StepBatch& batch, double learning_rate, size_t num_sources, int64_t step_number) {
  gradients_.clear();
  for (auto& [name, weight] : model_->weights()) weight.dense.mutable_grad() = at::Tensor();
  StepResult result;
  result.by_source.resize(num_sources);
  for (size_t i = 0; i < batch.micro.size(); ++i)
    if (static_cast<int>(i) % comm_->size() == comm_->rank())
      run_micro_batch(batch.micro[i], batch, std::max<int64_t>(1, batch.num_targets), result);
  if (comm_->size() > 1) {
    reduce_gradients();
    reduce_statistics(result);
  }
  LossSum all;
  for (const LossSum& source : result.by_source) {
    all.nll += source.nll;
    all.targets += source.targets;
  }
  result.loss = all.targets > 0 ? all.nll / static_cast<double>(all.targets) : 0;
  result.grad_norm = global_norm(gradients_);
  if (!std::isfinite(result.loss) || !std::isfinite(result.auxiliary_loss) || !std::isfinite(result.grad_norm))
    report_not_finite(batch, step_number, result.loss);

  const double limit = stage_.optimizer.clip_norm;
  const double scale = limit > 0 && result.grad_norm > limit ? limit / result.grad_norm : 1;
  optimizer_.step(gradients_, learning_rate, scale, stage_.optimizer);
  if (stage_.balance.bias_rate > 0)
    for (auto& [layer, bias] : bias_)
      update_selection_bias(bias, result.routing.at(layer).expert_rows, stage_.balance.bias_rate);
  const c10::NoGradGuard no_grad;
  for (auto& [name, gradient] : gradients_) {
    at::Tensor& weight = model_->weights().at(name).dense;
    if (weight.scalar_type() != masters_.at(name).scalar_type()) weight.copy_(masters_.at(name));
  }
  return result;
}

LossSum Learner::evaluate(const StepBatch& batch) const {
  const c10::NoGradGuard no_grad;
  LossSum sum;
  for (const MicroBatch& micro : batch.micro) {
    if (micro.targets.size(0) == 0) continue;
    const at::Tensor hidden_RD = model_->hidden(batch_of(micro));
    const auto statistics = ops::linear_log_probs(hidden_RD, model_->weights().at("lm_head.weight"), micro.targets);
    sum.nll -= statistics.log_probs.sum(at::kDouble).item<double>();
    sum.targets += micro.targets.size(0);
  }
  return sum;
}

std::string Learner::first_bad_activation(const MicroBatch& micro) const {
  const arch::Llama4Config& config = model_->config();
  if (micro.pixels.defined()) {
    model::Trace trace;
    model_->encode_images(micro.pixels.to(compute_), &trace);
    const std::string name = first_not_finite(trace, vision_trace_order(config.vision->num_hidden_layers));
    if (!name.empty()) return "vision_model." + name;
  }
  model::Trace trace;
  model::TrainingPass pass = new_pass();
  model_->hidden(batch_of(micro), &trace, &pass);
  return first_not_finite(trace, trace_order(config.text.num_hidden_layers));
}

std::string Learner::first_offender(const StepBatch& batch) {
  for (const arch::ParamRow& row : rows_)
    if (!all_finite(masters_.at(row.name))) return fmt::format("weight '{}'", row.name);
  const c10::NoGradGuard no_grad;
  for (size_t i = 0; i < batch.micro.size(); ++i) {
    const std::string name = first_bad_activation(batch.micro[i]);
    if (!name.empty()) return fmt::format("activation '{}' of micro-batch {}", name, i);
  }
  // Backward runs from the last layer to the first, and through the vision model after the text model.
  for (const bool vision : {false, true})
    for (auto row = rows_.rbegin(); row != rows_.rend(); ++row) {
      const auto found = gradients_.find(row->name);
      if (is_vision(*row) == vision && found != gradients_.end() && !all_finite(found->second))
        return fmt::format("gradient of '{}'", row->name);
    }
  return "the loss";
}

void Learner::report_not_finite(const StepBatch& batch, int64_t step_number, double loss) {
  const size_t count = std::min(batch.documents.size(), kMaxShownDocuments);
  std::vector<std::string> shown(batch.documents.begin(), batch.documents.begin() + static_cast<std::ptrdiff_t>(count));
  if (batch.documents.size() > count) shown.push_back(fmt::format("{} more", batch.documents.size() - count));
  throw NotFinite(
      fmt::format("step {}: loss {} or its gradient is not finite; first in {}; nothing was updated. "
                  "Documents: {}. Lower the learning rate, or look at these documents",
                  step_number, loss, first_offender(batch), fmt::join(shown, ", ")));
}

}  // namespace puna::train
