// The selection bias, loads and dead experts, worked out by hand.
#include "train/balance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/model/support.h"
#include "tests/train/support.h"

namespace puna::train {
namespace {

using test::make_learner;
using test::plain_stage;
using test::random_batch;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<float> numbers(const at::Tensor& bias) {
  return {bias.const_data_ptr<float>(), bias.const_data_ptr<float>() + bias.numel()};
}

TEST(SelectionBias, RisesUnderTheMeanAndFallsAboveIt) {
  at::Tensor bias = at::zeros({4});
  update_selection_bias(bias, {10, 2, 4, 0}, 0.5);  // mean 4: down, up, stays, up; then minus 0.125
  EXPECT_THAT(numbers(bias), ElementsAre(-0.625f, 0.375f, -0.125f, 0.375f));
  update_selection_bias(bias, {4, 4, 4, 4}, 0.5);
  EXPECT_THAT(numbers(bias), ElementsAre(-0.625f, 0.375f, -0.125f, 0.375f)) << "balanced";
  update_selection_bias(bias, {0, 0, 0, 0}, 0.5);
  EXPECT_THAT(numbers(bias), ElementsAre(-0.625f, 0.375f, -0.125f, 0.375f)) << "nothing was routed";
}

TEST(SelectionBias, ItsMeanIsZero) {
  at::Tensor bias = at::zeros({5});
  for (int64_t step = 0; step < 200; ++step) update_selection_bias(bias, {step % 7, 3, 1, step % 2, 9}, 0.013);
  EXPECT_NEAR(bias.sum().item<double>(), 0, 1e-5);
  EXPECT_GT(bias.abs().max().item<double>(), 1);
}

StageConfig balanced() {
  StageConfig stage = plain_stage();
  stage.balance.bias_rate = 0.25;
  return stage;
}

// Once per optimizer step, by the rows of all micro-batches together.
TEST(SelectionBias, MovesOncePerStepOverAllMicroBatches) {
  const StepBatch batch = random_batch({{9, 4}, {7}, {12, 3}});
  const auto learner = make_learner(balanced());
  const StepResult result = learner->step(batch, 1e-3, 1, 1);
  ASSERT_EQ(learner->selection_bias().size(), 3);
  for (const auto& [layer, bias] : learner->selection_bias()) {
    at::Tensor expected = at::zeros({4});
    update_selection_bias(expected, result.routing[layer].expert_rows, 0.25);
    EXPECT_TRUE(at::equal(bias, expected)) << layer;
    EXPECT_EQ(result.routing[layer].tokens, 35);
    EXPECT_GT(bias.abs().max().item<double>(), 0) << layer;
  }
}

TEST(Loads, AreSharesWithEntropyAndViolation) {
  std::vector<model::RoutingStatistics> routing(3);
  routing[1] = {{6, 2, 0, 0}, {3, 0, 0, 0}, 8 * 0.5, 2, 8};
  const std::vector<LayerLoad> loads = layer_loads(routing);
  ASSERT_EQ(loads.size(), 1);
  EXPECT_EQ(loads[0].layer, 1);
  EXPECT_THAT(loads[0].load, ElementsAre(0.75, 0.25, 0, 0));
  EXPECT_THAT(loads[0].image_share, ElementsAre(0.5, 0, 0, 0));
  EXPECT_DOUBLE_EQ(loads[0].router_entropy, 0.5);
  EXPECT_DOUBLE_EQ(loads[0].load_entropy, -0.75 * std::log(0.75) - 0.25 * std::log(0.25));
  EXPECT_DOUBLE_EQ(loads[0].max_violation, 2);
  EXPECT_DOUBLE_EQ(loads[0].bias_flips, 0.25);
}

LayerLoad load_of(std::vector<double> load) { return {3, std::move(load), {}, 0, 0, 0, 0}; }

TEST(DeadExperts, AreToldOnceByName) {
  BalanceConfig config;
  config.dead_steps = 3;
  config.dead_fraction = 0.1;
  DeadExperts dead;
  const LayerLoad bad = load_of({0.5, 0.5, 0.0, 0.02});  // below 0.1 of a quarter: the last two
  EXPECT_THAT(dead.update({bad}, config), IsEmpty());
  EXPECT_THAT(dead.update({bad}, config), IsEmpty());
  EXPECT_THAT(dead.update({bad}, config), ElementsAre(AllOf(HasSubstr("layer 3"), HasSubstr("experts 2, 3"))));
  EXPECT_THAT(dead.update({bad}, config), IsEmpty()) << "it was told";
  // State goes through a file: a resumed run tells neither twice nor late.
  DeadExperts resumed;
  resumed.restore(Json::parse(dead.state().dump()));
  EXPECT_THAT(resumed.update({bad}, config), IsEmpty());
  EXPECT_THAT(resumed.update({load_of({0.4, 0.4, 0.0, 0.2})}, config), ElementsAre(HasSubstr("expert 2 ")));
  EXPECT_THAT(resumed.update({load_of({0.25, 0.25, 0.25, 0.25})}, config), IsEmpty()) << "back to life";
}

TEST(DeadExperts, AStepWithTokensBeginsTheCountAnew) {
  BalanceConfig config;
  config.dead_steps = 2;
  DeadExperts dead;
  for (int i = 0; i < 6; ++i)
    EXPECT_THAT(dead.update({load_of(i % 2 == 0 ? std::vector<double>{1, 0} : std::vector<double>{0.5, 0.5})}, config),
                IsEmpty());
}

TEST(DeadExperts, OneThatRevivedIsToldAgain) {
  BalanceConfig config;
  config.dead_steps = 2;
  DeadExperts dead;
  const LayerLoad bad = load_of({1, 0}), good = load_of({0.5, 0.5});
  for (int death = 0; death < 2; ++death) {
    EXPECT_THAT(dead.update({bad}, config), IsEmpty());
    EXPECT_THAT(dead.update({bad}, config), ElementsAre(HasSubstr("expert 1 "))) << death;
    EXPECT_THAT(dead.update({good}, config), IsEmpty());
  }
}

}  // namespace
}  // namespace puna::train
