#include "checkpoint/tensor_models.h"

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <utility>

#include "base/error.h"

namespace puna::checkpoint {
namespace {

// FNV-1a: a row's stream of random numbers does not depend on which other rows there are.
uint64_t seed_of(uint64_t seed, std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u ^ (seed * 0x9E3779B97F4A7C15u);
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

bool writes_to_residual(const std::string& name) {
  for (const char* part : {"o_proj.weight", "down_proj", "mlp.fc2.weight"})
    if (name.find(part) != std::string::npos) return name.find("vision_adapter") == std::string::npos;
  return false;
}

class MemoryModel : public ModelSource {
 public:
  explicit MemoryModel(const arch::Llama4Config& config) {
    config_ = config;
    rows_ = arch::parameter_table(config);
  }
  int64_t stored_bytes() const override {
    int64_t bytes = 0;
    for (const arch::ParamRow& row : rows_) bytes += 4 * c10::multiply_integers(row.shape);
    return bytes;
  }
};

/// As strong as the patches that they are added to, so that places are told apart from the first step.
constexpr double kVisionEmbeddingDeviation = 0.5;

class RandomModel : public MemoryModel {
 public:
  RandomModel(const arch::Llama4Config& config, uint64_t seed, double embedding_deviation)
      : MemoryModel(config), seed_(seed), embedding_deviation_(embedding_deviation) {}

  std::string format() const override { return "random weights"; }
  bool is_zero_copy(const arch::ParamRow&, at::ScalarType) const override { return false; }

  at::Tensor load(const arch::ParamRow& row, at::ScalarType dtype) const override {
    const auto options = at::TensorOptions().dtype(at::kFloat);
    const bool norm = row.shape.size() == 1 && row.name.find("norm") != std::string::npos;
    if (norm && row.name.ends_with("weight")) return at::ones(row.shape, options.dtype(dtype));
    if (row.name.ends_with("bias")) return at::zeros(row.shape, options.dtype(dtype));
    at::Generator generator = at::detail::createCPUGenerator(seed_of(seed_, row.name));
    return (at::randn(row.shape, generator, options) * deviation(row)).to(dtype);
  }

 private:
  double deviation(const arch::ParamRow& row) const {
    if (row.kind == arch::ParamKind::kEmbedding) return embedding_deviation_;
    if (row.name.ends_with("_embedding") || row.name.ends_with("_embedding_vlm")) return kVisionEmbeddingDeviation;
    const bool input_major = row.kind == arch::ParamKind::kRoutedExperts;
    const double fan_in = static_cast<double>(input_major ? row.shape[1] : row.shape.back());
    const int64_t layers =
        row.kind == arch::ParamKind::kVision ? config_.vision->num_hidden_layers : config_.text.num_hidden_layers;
    const double branch = writes_to_residual(row.name) ? std::sqrt(2.0 * static_cast<double>(layers)) : 1;
    return 1 / (std::sqrt(fan_in) * branch);
  }

  uint64_t seed_;
  double embedding_deviation_;
};

class TensorsModel : public MemoryModel {
 public:
  TensorsModel(const arch::Llama4Config& config, std::map<std::string, at::Tensor> tensors)
      : MemoryModel(config), tensors_(std::move(tensors)) {
    std::string wrong;
    for (const arch::ParamRow& row : rows_) {
      const auto found = tensors_.find(row.name);
      if (found == tensors_.end())
        wrong += fmt::format(" '{}' is missing;", row.name);
      else if (found->second.sizes() != at::IntArrayRef(row.shape))
        wrong += fmt::format(" '{}' is [{}], not [{}];", row.name, fmt::join(found->second.sizes(), ", "),
                             fmt::join(row.shape, ", "));
    }
    if (!wrong.empty()) fail("weights", "the tensors do not fit the config:{} do they belong to it?", wrong);
  }

  std::string format() const override { return "tensors in memory"; }
  bool is_zero_copy(const arch::ParamRow& row, at::ScalarType dtype) const override {
    return tensors_.at(row.name).scalar_type() == dtype;
  }
  at::Tensor load(const arch::ParamRow& row, at::ScalarType dtype) const override {
    return tensors_.at(row.name).detach().to(dtype);
  }

 private:
  std::map<std::string, at::Tensor> tensors_;
};

}  // namespace

std::unique_ptr<ModelSource> random_model(const arch::Llama4Config& config, uint64_t seed, double embedding_deviation) {
  return std::make_unique<RandomModel>(config, seed, embedding_deviation);
}

std::unique_ptr<ModelSource> tensors_model(const arch::Llama4Config& config,
                                           std::map<std::string, at::Tensor> tensors) {
  return std::make_unique<TensorsModel>(config, std::move(tensors));
}

}  // namespace puna::checkpoint
