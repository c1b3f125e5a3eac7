// Gradients and a short training run through the same forward, against golden files (SPEC 3, loss; SPEC 10).
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <cmath>

#include "arch/parameters.h"
#include "ops/loss.h"
#include "tests/model/support.h"
#include "tests/support/golden.h"

namespace puna::test {
namespace fs = std::filesystem;
namespace {

constexpr double kGradients = 1e-4;  // relative RMS
constexpr double kLosses = 1e-3;

bool is_text(const std::string& name) { return !name.starts_with("vision_model.") && !name.starts_with("multi_modal"); }

// Loaded weights may be the mapped file: training needs its own.
Tensors make_trainable(model::Model& model, bool vision) {
  Tensors parameters;
  for (auto& [name, weight] : model.weights()) {
    if (!vision && !is_text(name)) continue;
    weight.dense = weight.dense.clone().requires_grad_();
    parameters[name] = weight.dense;
  }
  return parameters;
}

fs::path set_of(const fs::path& training) { return training.parent_path().parent_path(); }

// Rows of [B, T] as one ragged batch; the loss is the mean over all B * (T - 1) targets.
at::Tensor loss_of(const model::Model& model, const at::Tensor& tokens_BT) {
  const int64_t B = tokens_BT.size(0), T = tokens_BT.size(1);
  model::Batch batch;
  batch.tokens = tokens_BT.flatten();
  batch.sequence_begin = {0};
  std::vector<at::Tensor> targets;
  for (int64_t b = 0; b < B; ++b) {
    batch.sequence_begin.push_back((b + 1) * T);
    batch.first_position.push_back(0);
    targets.push_back(ops::shifted_targets(tokens_BT[b]));
  }
  return ops::cross_entropy(model.forward(batch), at::cat(targets));
}

double relative_rms(const at::Tensor& actual, const at::Tensor& expected) {
  return ((actual - expected).to(at::kDouble).norm() / expected.to(at::kDouble).norm()).item<double>();
}

double clip_gradients(const Tensors& parameters, double limit) {
  double sum = 0;
  for (const auto& [name, p] : parameters) sum += p.grad().to(at::kDouble).square().sum().item<double>();
  const double norm = std::sqrt(sum), scale = std::min(1.0, limit / (norm + 1e-6));
  for (const auto& [name, p] : parameters) p.grad().mul_(scale);
  return norm;
}

// Decoupled weight decay (Loshchilov and Hutter 2019), with torch.optim.AdamW's order of operations.
class AdamW {
 public:
  explicit AdamW(const Json& recipe)
      : lr_(recipe.at("lr")),
        beta1_(recipe.at("betas")[0]),
        beta2_(recipe.at("betas")[1]),
        eps_(recipe.at("eps")),
        decay_(recipe.at("weight_decay")) {}

  void step(const Tensors& parameters) {
    const c10::NoGradGuard guard;
    ++steps_;
    const double first = 1 - std::pow(beta1_, steps_), second = std::sqrt(1 - std::pow(beta2_, steps_));
    for (const auto& [name, parameter] : parameters) {
      at::Tensor p = parameter.detach(), g = parameter.grad();
      auto [entry, fresh] = state_.try_emplace(name);
      if (fresh) entry->second = {at::zeros_like(p), at::zeros_like(p)};
      auto& [m, v] = entry->second;
      p.mul_(1 - lr_ * decay_);
      m.lerp_(g, 1 - beta1_);
      v.mul_(beta2_).addcmul_(g, g, 1 - beta2_);
      p.addcdiv_(m, (v.sqrt() / second).add_(eps_), -lr_ / first);
      parameter.mutable_grad().reset();
    }
  }

 private:
  double lr_, beta1_, beta2_, eps_, decay_;
  int steps_ = 0;
  std::map<std::string, std::pair<at::Tensor, at::Tensor>> state_;
};

TEST(Training, FirstStepGradients) {
  int compared = 0;
  for (const fs::path& dir : golden_directories("training")) {
    if (!fs::exists(dir / "grads_step1.safetensors")) continue;
    const auto model = load_model(set_of(dir) / "ckpt" / dir.filename());
    Tensors parameters = make_trainable(*model, false);
    loss_of(*model, read_tensors(dir / "tokens.safetensors").at("tokens")[0]).backward();
    const Tensors golden = read_tensors(dir / "grads_step1.safetensors");
    EXPECT_EQ(golden.size(), parameters.size());
    for (const auto& [hf_name, expected] : golden) {
      SCOPED_TRACE(dir / hf_name);
      const at::Tensor gradient = parameters.at(arch::from_hf_name(hf_name)).grad();
      ASSERT_TRUE(gradient.defined());
      ASSERT_EQ(gradient.sizes(), expected.sizes());
      EXPECT_LE(relative_rms(gradient, expected), kGradients);
      ++compared;
    }
  }
  EXPECT_GT(compared, 50);
}

TEST(Training, TwentyStepLosses) {
  int compared = 0;
  for (const fs::path& dir : golden_directories("training")) {
    const Json golden = read_json_file(dir / "train.json");
    const auto model = load_model(set_of(dir) / "ckpt" / dir.filename());
    Tensors parameters = make_trainable(*model, false);
    const at::Tensor tokens = read_tensors(dir / "tokens.safetensors").at("tokens");
    AdamW optimiser(golden);
    for (int64_t s = 0; s < tokens.size(0); ++s) {
      SCOPED_TRACE(dir / fmt::format("step {}", s + 1));
      const at::Tensor loss = loss_of(*model, tokens[s]);
      loss.backward();
      const Json& row = golden.at("steps").at(s);
      EXPECT_NEAR(loss.item<double>(), row.at("loss").get<double>(), kLosses);
      const double norm = clip_gradients(parameters, golden.at("clip"));
      EXPECT_NEAR(norm / row.at("grad_norm_before_clip").get<double>(), 1, 1e-3);
      optimiser.step(parameters);
      ++compared;
    }
    double sum = 0;
    for (const auto& [name, p] : parameters) sum += p.detach().to(at::kDouble).square().sum().item<double>();
    EXPECT_NEAR(std::sqrt(sum) / golden.at("total_l2").get<double>(), 1, 1e-5);
  }
  EXPECT_GE(compared, 20);
}

TEST(Training, GradientsThroughTheVisionTower) {
  int compared = 0;
  for (const fs::path& dir : golden_directories("training")) {
    if (!fs::exists(dir / "image_grads.json")) continue;
    const Json golden = read_json_file(dir / "image_grads.json");
    const fs::path input = set_of(dir) / golden.at("input").get<std::string>();
    if (!fs::exists(input)) continue;
    const auto model = load_model(set_of(dir) / "ckpt" / dir.filename());
    Tensors parameters = make_trainable(*model, true);
    const Tensors prompt = read_tensors(input);
    model::Batch batch = model::Batch::single(prompt.at("ids"));
    batch.image_features = model->encode_images(prompt.at("pixel_values"));
    const at::Tensor labels = at::tensor(golden.at("labels").get<std::vector<int64_t>>(), at::kLong);
    const at::Tensor loss = ops::cross_entropy(model->forward(batch), ops::shifted_targets(labels));
    EXPECT_NEAR(loss.item<double>(), golden.at("loss").get<double>(), 1e-4);
    loss.backward();
    EXPECT_EQ(golden.at("grads").size(), parameters.size());
    for (const auto& [hf_name, digest] : golden.at("grads").items()) {
      SCOPED_TRACE(dir / hf_name);
      const at::Tensor gradient = parameters.at(arch::from_hf_name(hf_name)).grad();
      ASSERT_TRUE(gradient.defined());
      const at::Tensor flat = gradient.to(at::kDouble).flatten();
      const double norm = digest.at("l2");
      EXPECT_NEAR(flat.norm().item<double>(), norm, kGradients * norm);
      EXPECT_NEAR(flat.abs().sum().item<double>(), digest.at("abs_sum").get<double>(),
                  kGradients * digest.at("abs_sum").get<double>());
      const auto index = digest.at("index").get<std::vector<int64_t>>();
      const auto value = digest.at("value").get<std::vector<double>>();
      for (size_t i = 0; i < index.size(); ++i)
        EXPECT_NEAR(flat[index[i]].item<double>(), value[i], 2 * kGradients * norm);
      ++compared;
    }
  }
  EXPECT_GT(compared, 50);
}

// A frozen model needs no graph, whatever the caller's grad mode.
TEST(Training, NothingIsRecordedWithoutTrainableWeights) {
  const auto model = random_model(small_config());
  const at::Tensor ids = random_ids(7, 90, 1);
  EXPECT_FALSE(model->forward(model::Batch::single(ids)).requires_grad());
  make_trainable(*model, false);
  EXPECT_TRUE(model->forward(model::Batch::single(ids)).requires_grad());
  const c10::NoGradGuard guard;
  EXPECT_FALSE(model->forward(model::Batch::single(ids)).requires_grad());
}

// An adapter on frozen weights is the usual fine-tuning: its gradients alone must be there.
TEST(Training, AdaptersTrainOnFrozenWeights) {
  const auto model = random_model(small_config());
  checkpoint::Adapter adapter{"test", {}};
  adapter.weights.push_back({"model.layers.1.self_attn.q_proj.weight", at::randn({2, 32}), at::randn({32, 2}), 0.5});
  adapter.weights.push_back(
      {"model.layers.1.feed_forward.experts.down_proj", at::randn({4, 2, 24}), at::randn({4, 32, 2}), 0.5});
  model->add_adapter(adapter);
  std::vector<at::Tensor> trained;
  for (auto& [name, weight] : model->weights())
    for (ops::LowRank& low : weight.adapters)
      for (at::Tensor* t : {&low.a, &low.b}) trained.push_back(t->requires_grad_());
  ASSERT_EQ(trained.size(), 4);
  const at::Tensor ids = random_ids(12, 90, 2);
  ops::cross_entropy(model->forward(model::Batch::single(ids)), ops::shifted_targets(ids)).backward();
  for (const at::Tensor& t : trained) EXPECT_GT(t.grad().abs().sum().item<double>(), 0);
}

}  // namespace
}  // namespace puna::test
