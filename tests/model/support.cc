#include "tests/model/support.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "checkpoint/model_source.h"
#include "checkpoint/scalar_type.h"
#include "io/safetensors.h"
#include "tests/support/golden.h"

namespace puna::test {
namespace fs = std::filesystem;
namespace {

// The golden models are so small that a second thread only waits for the first.
class OneThread : public testing::Environment {
  void SetUp() override { at::set_num_threads(1); }
};
[[maybe_unused]] const auto* const kOneThread = testing::AddGlobalTestEnvironment(new OneThread);

class RandomSource : public checkpoint::ModelSource {
 public:
  RandomSource(const arch::Llama4Config& config, uint64_t seed, EditRow edit) : seed_(seed), edit_(std::move(edit)) {
    config_ = config;
    rows_ = arch::parameter_table(config);
  }
  std::string format() const override { return "random"; }
  int64_t stored_bytes() const override { return 0; }
  bool is_zero_copy(const arch::ParamRow&, at::ScalarType) const override { return false; }
  at::Tensor load(const arch::ParamRow& row, at::ScalarType dtype) const override {
    auto generator = at::detail::createCPUGenerator(seed_ + std::hash<std::string>()(row.name));
    at::Tensor t = at::randn(row.shape, generator, at::TensorOptions().dtype(at::kFloat));
    const int64_t inputs = row.shape.size() == 3 ? row.shape[1] : row.shape.back();
    const bool norm = row.shape.size() == 1 && row.name.ends_with("weight");
    t = norm ? t * 0.1 + 1 : t * (1.3 / std::sqrt(static_cast<double>(inputs)));
    if (row.kind == arch::ParamKind::kEmbedding) t = t * std::sqrt(static_cast<double>(inputs));
    if (edit_) edit_(row, t);
    return t.to(dtype);
  }

 private:
  uint64_t seed_;
  EditRow edit_;
};

}  // namespace

Tensors read_tensors(const fs::path& file) {
  const io::TensorFile stored = io::open_safetensors(file);
  Tensors tensors;
  for (const io::TensorView& view : stored.tensors()) {
    at::Tensor t = at::from_blob(const_cast<std::byte*>(view.bytes.data()), view.shape,
                                 checkpoint::scalar_type(view.dtype).value())
                       .clone();
    tensors[view.name] = view.dtype == DType::I32 ? t.to(at::kLong) : t;
  }
  return tensors;
}

std::vector<fs::path> golden_directories(const std::string& part) {
  std::vector<fs::path> found;
  for (const fs::path& set : golden_sets()) {
    std::error_code ec;
    for (const auto& entry : fs::directory_iterator(set / part, ec))
      if (entry.is_directory()) found.push_back(entry.path());
  }
  std::ranges::sort(found);
  return found;
}

testing::AssertionResult tensors_close(const at::Tensor& actual, const at::Tensor& expected, double atol) {
  if (!actual.defined() || actual.sizes() != expected.sizes())
    return testing::AssertionFailure() << "shapes differ: "
                                       << (actual.defined() ? fmt::format("{}", fmt::join(actual.sizes(), "x"))
                                                            : "none")
                                       << " and " << fmt::format("{}", fmt::join(expected.sizes(), "x"));
  const at::Tensor a = actual.detach().to(at::kFloat).contiguous(), b = expected.detach().to(at::kFloat).contiguous();
  const auto span = [](const at::Tensor& t) {
    return std::span(t.const_data_ptr<float>(), static_cast<size_t>(t.numel()));
  };
  return all_close(span(a), span(b), atol);
}

std::unique_ptr<model::Model> random_model(const arch::Llama4Config& config, uint64_t seed, at::ScalarType dtype,
                                           const EditRow& edit) {
  return model::Model::load(RandomSource(config, seed, edit), {.dtype = dtype, .device = at::kCPU});
}

arch::Llama4Config small_config() {
  arch::Llama4Config config;
  arch::TextConfig& t = config.text;
  t.vocab_size = 96;
  t.hidden_size = 32;
  t.num_hidden_layers = 4;
  t.num_attention_heads = 4;
  t.num_key_value_heads = 2;
  t.head_dim = 8;
  t.intermediate_size = 24;
  t.intermediate_size_mlp = 40;
  t.num_local_experts = 4;
  t.moe_layers = {0, 1, 3};
  t.uses_rope = {1, 1, 1, 0};
  t.floor_scale = 4;
  t.attention_chunk_size = 5;
  t.max_position_embeddings = 1 << 20;
  arch::VisionConfig v;
  v.hidden_size = 16;
  v.num_hidden_layers = 2;
  v.num_attention_heads = 2;
  v.intermediate_size = 64;
  v.image_size = 56;
  v.vision_output_dim = 12;
  config.vision = v;
  config.image_token_id = 95;
  return config;
}

std::unique_ptr<model::Model> load_model(const fs::path& path, at::ScalarType dtype) {
  return model::Model::load(*checkpoint::open_model(path),
                            {.dtype = dtype, .device = at::kCPU, .weights = model::WeightForm::kDense});
}

at::Tensor random_ids(int64_t count, int64_t limit, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randint(0, limit, {count}, generator, at::TensorOptions().dtype(at::kLong));
}

at::Tensor in_pieces(const model::Model& model, const at::Tensor& ids, const std::vector<int64_t>& sizes,
                     const at::Tensor& image_features) {
  const arch::Llama4Config& config = model.config();
  const at::ScalarType dtype = model.weights().begin()->second.dense.scalar_type();
  model::KvCache cache(config.text, dtype, at::kCPU);
  std::vector<at::Tensor> logits;
  int64_t begin = 0, used_features = 0;
  for (const int64_t size : sizes) {
    model::Batch batch = model::Batch::single(ids.narrow(0, begin, size));
    batch.first_position = {begin};
    batch.caches = {&cache};
    if (image_features.defined()) {
      const int64_t count = (batch.tokens == config.image_token_id).sum().item<int64_t>();
      batch.image_features = image_features.narrow(0, used_features, count);
      used_features += count;
    }
    logits.push_back(model.forward(batch));
    begin += size;
  }
  return at::cat(logits);
}

std::vector<int64_t> greedy(const model::Model& model, const at::Tensor& prompt, int64_t count,
                            const at::Tensor& image_features) {
  const at::ScalarType dtype = model.weights().begin()->second.dense.scalar_type();
  model::KvCache cache(model.config().text, dtype, at::kCPU);
  model::Batch batch = model::Batch::single(prompt);
  batch.caches = {&cache};
  batch.image_features = image_features;
  std::vector<int64_t> tokens;
  while (true) {
    batch.output_rows = at::full({1}, batch.tokens.size(0) - 1, at::kLong);
    const at::Tensor next = model.forward(batch).argmax(1);
    tokens.push_back(next.item<int64_t>());
    if (static_cast<int64_t>(tokens.size()) == count) return tokens;
    batch = model::Batch::single(next);
    batch.first_position = {cache.length()};
    batch.caches = {&cache};
  }
}

}  // namespace puna::test
