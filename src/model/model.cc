#include "model/model.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "model/load_weights.h"
#include "model/parts.h"
#include "model/text_model.h"
#include "model/vision_model.h"

namespace puna::model {
namespace {

// Without gradients the autograd dispatch is left out altogether, and the ops overwrite their own temporaries.
struct NoGradient {
  c10::NoGradGuard no_grad;
  at::AutoDispatchBelowADInplaceOrView below;
};

}  // namespace

struct Model::Impl {
  arch::Llama4Config config;
  LoadOptions options;
  std::shared_ptr<experts::ExpertStore> store;
  Weights weights;
  std::optional<TextModel> text;
  std::optional<VisionModel> vision;

  // The weight that was trainable last time: asking it first spares a training step the walk over all.
  mutable std::atomic<const ops::Weight*> trainable = nullptr;

  bool needs_gradient(const at::Tensor& input) const {
    if (!ops::recording()) return false;
    if (input.defined() && input.requires_grad()) return true;
    const ops::Weight* known = trainable;
    if (known && is_trainable(*known)) return true;
    const auto found = std::ranges::find_if(weights, [](const auto& entry) { return is_trainable(entry.second); });
    trainable = found == weights.end() ? nullptr : &found->second;
    return found != weights.end();
  }

  static bool is_trainable(const ops::Weight& weight) {
    return weight.dense.requires_grad() || std::ranges::any_of(weight.adapters, [](const ops::LowRank& low) {
             return low.a.requires_grad() || low.b.requires_grad();
           });
  }
};

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::~Model() = default;

std::unique_ptr<Model> Model::load(const checkpoint::ModelSource& source, const LoadOptions& options) {
  if (options.device.is_cuda() && !at::hasCUDA())
    fail("device", "this LibTorch has no CUDA, or there is no GPU; use --device cpu, or install a CUDA build of torch");
  auto impl = std::make_unique<Impl>();
  impl->config = source.config();
  impl->options = options;
  impl->store = open_store(source, options);
  Progress progress("loading", static_cast<int64_t>(source.rows().size()));
  for (const arch::ParamRow& row : source.rows()) {
    impl->weights[row.name] = load_weight(source, row, options, impl->store);
    progress.add(1);
  }
  if (const WeightBytes bytes = weight_bytes(source, options); bytes.num_dequantised > 0)
    spdlog::info("{} weights are dequantised: {} stored, {} here", bytes.num_dequantised, source.format(),
                 format_bytes(bytes.dequantised));
  impl->text.emplace(impl->config, impl->weights);
  if (impl->config.vision) impl->vision.emplace(*impl->config.vision, impl->weights, options.device);
  return std::unique_ptr<Model>(new Model(std::move(impl)));
}

const arch::Llama4Config& Model::config() const { return impl_->config; }

at::Tensor Model::forward(const Batch& batch, Trace* trace) const {
  std::optional<NoGradient> guard;
  if (!impl_->needs_gradient(batch.image_features)) guard.emplace();
  return impl_->text->forward(batch, trace);
}

at::Tensor Model::hidden(const Batch& batch, Trace* trace, TrainingPass* training) const {
  std::optional<NoGradient> guard;
  if (!impl_->needs_gradient(batch.image_features)) guard.emplace();
  return impl_->text->hidden(batch, trace, training);
}

at::Tensor Model::encode_images(const at::Tensor& pixels, Trace* trace) const {
  if (!impl_->vision) fail("model", "this model has no vision tower; it takes text only");
  std::optional<NoGradient> guard;
  if (!impl_->needs_gradient(pixels)) guard.emplace();
  return impl_->vision->forward(pixels, trace);
}

void Model::check_adapter(const checkpoint::Adapter& adapter) const {
  for (const checkpoint::AdapterWeight& addition : adapter.weights) {
    const auto weight = impl_->weights.find(addition.parameter);
    if (weight == impl_->weights.end())
      fail("adapter " + adapter.name, "the model has no parameter '{}'", addition.parameter);
    if (weight->second.streamed)
      fail("adapter " + adapter.name,
           "'{}' is read from its file when it is needed and takes no adapter; give more --memory", addition.parameter);
  }
}

void Model::add_adapter(const checkpoint::Adapter& adapter, int number) {
  check_adapter(adapter);
  const auto place = [&](const at::Tensor& t) { return t.to(impl_->options.device, impl_->options.dtype); };
  for (const checkpoint::AdapterWeight& addition : adapter.weights)
    impl_->weights.at(addition.parameter)
        .adapters.push_back({place(addition.a), place(addition.b), addition.scale, number});
}

void Model::remove_adapter(int number) {
  for (auto& [name, weight] : impl_->weights)
    std::erase_if(weight.adapters, [&](const ops::LowRank& low) { return low.adapter == number; });
}

experts::ExpertStore* Model::expert_store() const { return impl_->store.get(); }
const std::map<std::string, ops::Weight>& Model::weights() const { return impl_->weights; }
std::map<std::string, ops::Weight>& Model::weights() { return impl_->weights; }

}  // namespace puna::model
