// What a training forward adds: selection bias, routing statistics, auxiliary losses, recomputation, FP64.
#include <gmock/gmock.h>

#include <cmath>
#include <numeric>

#include "ops/linear_loss.h"
#include "ops/loss.h"
#include "ops/moe.h"
#include "tests/model/support.h"

namespace puna::test {
namespace {

model::Batch packed(const std::vector<int64_t>& lengths, uint64_t seed) {
  model::Batch batch;
  batch.sequence_begin = {0};
  for (const int64_t length : lengths) {
    batch.sequence_begin.push_back(batch.sequence_begin.back() + length);
    batch.first_position.push_back(0);
  }
  batch.tokens = random_ids(batch.sequence_begin.back(), 90, seed);
  return batch;
}

const std::vector<int64_t> kLengths = {1, 7, 13, 2, 20};

std::vector<std::pair<std::string, at::Tensor>> trainable(model::Model& model) {
  std::vector<std::pair<std::string, at::Tensor>> all;
  for (auto& [name, weight] : model.weights())
    if (name.starts_with("model.") || name.starts_with("lm_head"))
      all.emplace_back(name, weight.dense = weight.dense.detach().clone().requires_grad_());
  return all;
}

struct Result {
  double loss;
  model::TrainingPass pass;
  std::map<std::string, at::Tensor> gradients;
};

Result train_once(model::Model& model, const model::Batch& batch, model::TrainingPass pass) {
  const auto weights = trainable(model);
  const at::Tensor hidden = model.hidden(batch, nullptr, &pass);
  const at::Tensor targets = batch.tokens.roll(-1);
  const at::Tensor nll = -ops::linear_log_probs(hidden, model.weights().at("lm_head.weight"), targets).log_probs.mean();
  const at::Tensor loss = nll + pass.auxiliary_loss;
  loss.backward();
  Result result{loss.item<double>(), pass, {}};
  for (const auto& [name, weight] : weights) result.gradients[name] = weight.grad();
  return result;
}

TEST(TrainingPass, RecomputationGivesTheSameBitsAndCountsOnce) {
  for (const bool biased : {false, true}) {
    model::TrainingPass pass;
    pass.load_balance_weight = 0.3;
    pass.router_z_weight = 0.1;
    if (biased)
      for (int i = 0; i < 4; ++i) pass.selection_bias.push_back(at::tensor({0.3f, -0.3f, 0.2f, -0.2f}));
    const auto model = random_model(small_config(), 31);
    const model::Batch batch = packed(kLengths, 32);
    const Result plain = train_once(*model, batch, pass);
    pass.recompute = true;
    const Result again = train_once(*model, batch, pass);
    EXPECT_EQ(plain.loss, again.loss);
    EXPECT_TRUE(at::equal(plain.pass.auxiliary_loss, again.pass.auxiliary_loss));
    for (const auto& [name, gradient] : plain.gradients) {
      ASSERT_TRUE(again.gradients.at(name).defined()) << name;
      EXPECT_TRUE(at::equal(gradient, again.gradients.at(name))) << name;
    }
    for (size_t i = 0; i < plain.pass.routing.size(); ++i) {
      const model::RoutingStatistics &a = plain.pass.routing[i], &b = again.pass.routing[i];
      EXPECT_EQ(a.expert_rows, b.expert_rows);
      EXPECT_EQ(a.tokens, b.tokens);
      EXPECT_EQ(a.entropy_sum, b.entropy_sum);
      EXPECT_EQ(a.bias_flips, b.bias_flips);
      EXPECT_EQ(a.tokens, i == 2 ? 0 : 43);
      if (i == 2) continue;
      EXPECT_EQ(std::accumulate(a.expert_rows.begin(), a.expert_rows.end(), int64_t{0}), 43);
      EXPECT_EQ(a.bias_flips > 0, biased);
    }
  }
}

// The bias changes who is chosen, never by how much: where it does not flip, nothing changes.
TEST(TrainingPass, TheBiasIsForTheChoiceAlone) {
  const auto model = random_model(small_config(), 33);
  const model::Batch batch = packed(kLengths, 34);
  const Result without = train_once(*model, batch, {});
  model::TrainingPass pass;
  pass.selection_bias.assign(4, at::zeros({4}));
  const Result zero = train_once(*model, batch, pass);
  EXPECT_EQ(without.loss, zero.loss);
  pass.selection_bias.assign(4, at::full({4}, 5.0f));
  EXPECT_EQ(train_once(*model, batch, pass).loss, without.loss) << "the same for all experts";
  pass.selection_bias.assign(4, at::tensor({0.f, 0.f, 9.f, 0.f}));
  const Result forced = train_once(*model, batch, pass);
  EXPECT_THAT(forced.pass.routing[0].expert_rows, testing::ElementsAre(0, 0, 43, 0));
  const at::Tensor& gradient = forced.gradients.at("model.layers.0.feed_forward.experts.down_proj");
  EXPECT_FALSE(gradient.isnan().any().item<bool>());
  for (const int64_t e : {0, 1, 3}) EXPECT_EQ(gradient[e].abs().max().item<double>(), 0) << "an expert without tokens";
  EXPECT_GT(gradient[2].abs().max().item<double>(), 0);
}

TEST(TrainingPass, ImageRowsAreCountedPerExpert) {
  const auto model = random_model(small_config(), 35);
  model::Batch batch = packed({12, 9}, 36);
  batch.tokens.narrow(0, 3, 4).fill_(model->config().image_token_id);
  batch.image_features = at::randn({4, 32});
  const Result result = train_once(*model, batch, {});
  const model::RoutingStatistics& s = result.pass.routing[1];
  EXPECT_EQ(std::accumulate(s.expert_image_rows.begin(), s.expert_image_rows.end(), int64_t{0}), 4);
  for (int e = 0; e < 4; ++e) EXPECT_LE(s.expert_image_rows[e], s.expert_rows[e]);
  EXPECT_GT(s.entropy_sum, 0);
  EXPECT_LT(s.entropy_sum, 21 * std::log(4.0));
}

TEST(TrainingPass, StatisticsAddUpOverForwards) {
  const auto model = random_model(small_config(), 37);
  model::TrainingPass pass;
  pass.load_balance_weight = 1;
  model->hidden(packed({5}, 1), nullptr, &pass);
  const double first = pass.auxiliary_loss.item<double>();
  model->hidden(packed({5}, 1), nullptr, &pass);
  EXPECT_EQ(pass.routing[0].tokens, 10);
  EXPECT_NEAR(pass.auxiliary_loss.item<double>(), 2 * first, 1e-6);
}

// A sigmoid router could otherwise lower the loss by pushing every score towards zero.
TEST(AuxiliaryLoss, DoesNotFallWhenAllScoresShrink) {
  at::manual_seed(38);
  const at::Tensor logits = at::randn({50, 4}, at::kDouble) - 10;
  const auto loss_of = [](const at::Tensor& l) {
    const ops::Routing routing = ops::route(l, 1, ops::RouterScore::kSigmoid);
    return ops::load_balance_loss(l, routing, ops::RouterScore::kSigmoid).item<double>();
  };
  const double before = loss_of(logits);
  EXPECT_NEAR(loss_of(logits - 20), before, 1e-3 * before);
  EXPECT_NEAR(loss_of((logits - 2000).to(at::kFloat)), before, 1e-3 * before) << "scores that underflow";
  EXPECT_NEAR(loss_of(at::eye(4, at::kDouble)), 1, 1e-12) << "balanced";
}

TEST(AuxiliaryLoss, IsDifferentiableAndPullsTowardsBalance) {
  at::manual_seed(39);
  const at::Tensor logits = (at::randn({64, 4}, at::kDouble) + at::tensor({3.0, 0.0, 0.0, 0.0})).requires_grad_();
  const ops::Routing routing = ops::route(logits, 1, ops::RouterScore::kSigmoid);
  ops::load_balance_loss(logits, routing, ops::RouterScore::kSigmoid).backward();
  const at::Tensor g = logits.grad().sum(0);
  EXPECT_GT(g[0].item<double>(), 0);
  for (int e = 1; e < 4; ++e) EXPECT_LT(g[e].item<double>(), 0);
}

// With one value rounded to fp32 on the way, the two precisions would agree to 1e-7 only where fp64 says otherwise.
TEST(TrainingPass, Fp64ModelsComputeInFp64Throughout) {
  arch::Llama4Config config = small_config();
  config.text.floor_scale = 2;
  const auto model = random_model(config, 40, at::kDouble);
  const model::Batch batch = packed(kLengths, 41);
  const at::Tensor x = model->hidden(batch);
  ASSERT_EQ(x.scalar_type(), at::kDouble);
  // A change of one part in 10^12 of one weight must show in proportion; fp32 steps would hide or magnify it.
  at::Tensor w = model->weights().at("model.layers.0.self_attn.q_proj.weight").dense;
  const at::Tensor original = w.clone(), direction = at::randn_like(w);
  const auto change = [&](double step) {
    w.copy_(original + direction * step);
    return model->hidden(batch) - x;
  };
  const at::Tensor small = change(1e-10) / 1e-10, large = change(1e-7) / 1e-7;
  EXPECT_LE((small - large).norm().item<double>(), 1e-3 * large.norm().item<double>());
}

}  // namespace
}  // namespace puna::test
