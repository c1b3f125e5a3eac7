// Bugs that trainers have had without anybody seeing them in the loss curve, one test each.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "arch/parameters.h"
#include "model/training.h"
#include "ops/moe.h"
#include "tests/model/support.h"
#include "tests/support/golden.h"
#include "tests/train/support.h"
#include "train/balance.h"
#include "train/checkpoint.h"
#include "train/metrics.h"
#include "train/run_state.h"

namespace puna::train {
namespace {

using test::copies;
using test::greatest_difference;
using test::make_learner;
using test::plain_stage;
using test::random_batch;

StageConfig balanced() {
  StageConfig stage = plain_stage();
  stage.balance.bias_rate = 0.05;
  return stage;
}

std::map<int, at::Tensor> bias_of(Learner& learner) {
  std::map<int, at::Tensor> result;
  for (const auto& [layer, bias] : learner.selection_bias()) result[layer] = bias.clone();
  return result;
}

void expect_equal_bias(const std::map<int, at::Tensor>& a, const std::map<int, at::Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [layer, bias] : a) EXPECT_TRUE(at::equal(bias, b.at(layer))) << layer;
}

TEST(SilentBugs, EvalTokensAreNotCountedIntoTheBalanceBias) {
  const StepBatch batch = random_batch({{9, 14}}), next = random_batch({{11, 5}}, 99);
  const auto plain = make_learner(balanced()), evaluated = make_learner(balanced());
  plain->step(batch, 1e-3, 1, 1);
  evaluated->step(batch, 1e-3, 1, 1);
  for (uint64_t seed = 0; seed < 5; ++seed) evaluated->evaluate(random_batch({{20, 10}}, seed));
  evaluated->model().forward(model::Batch::single(test::random_ids(30, 256, 1)));
  expect_equal_bias(bias_of(*plain), bias_of(*evaluated));
  const StepResult a = plain->step(next, 1e-3, 1, 2), b = evaluated->step(next, 1e-3, 1, 2);
  for (size_t i = 0; i < a.routing.size(); ++i) EXPECT_EQ(a.routing[i].expert_rows, b.routing[i].expert_rows);
  expect_equal_bias(bias_of(*plain), bias_of(*evaluated));
}

TEST(SilentBugs, RecomputeCountsRoutingOnce) {
  const StepBatch batch = random_batch({{9, 14}, {6}});
  const auto plain = make_learner(balanced()), again = make_learner(balanced(), at::kDouble, /*recompute=*/true);
  for (int64_t step = 1; step <= 3; ++step) {
    const StepResult a = plain->step(batch, 1e-3, 1, step), b = again->step(batch, 1e-3, 1, step);
    for (const int layer : {0, 1, 3}) {
      EXPECT_EQ(b.routing[layer].tokens, 29);
      EXPECT_EQ(a.routing[layer].expert_rows, b.routing[layer].expert_rows);
    }
  }
  expect_equal_bias(bias_of(*plain), bias_of(*again));
}

TEST(SilentBugs, NanCheckDoesNotCountRouting) {
  const StepBatch batch = random_batch({{9, 14}});
  const auto learner = make_learner(balanced());
  learner->step(batch, 1e-3, 1, 1);
  const auto before = bias_of(*learner);
  learner->masters().at("lm_head.weight").detach()[1][1] = NAN;
  EXPECT_THROW(learner->step(batch, 1e-3, 1, 2), NotFinite);
  expect_equal_bias(before, bias_of(*learner));
}

TEST(SilentBugs, TheBiasIsForTrainingAlone) {
  const auto learner = make_learner(balanced());
  const at::Tensor ids = test::random_ids(20, 256, 3);
  const at::Tensor before = learner->model().forward(model::Batch::single(ids)).detach();
  for (auto& [layer, bias] : learner->selection_bias()) bias.copy_(at::tensor({9.f, -3.f, -3.f, -3.f}));
  EXPECT_TRUE(at::equal(learner->model().forward(model::Batch::single(ids)).detach(), before));
}

// What another process makes of a learner, through a checkpoint on disk.
std::unique_ptr<Learner> taken_over(Learner& from, const StageConfig& stage) {
  const test::TemporaryDirectory dir;
  const arch::Llama4Config config = test::train_config();
  Checkpoint saved;
  saved.step = 1;
  RunState state;
  store_learner(from, saved, state);
  state.config = arch::config_to_hf(config);
  saved.state = to_json(state);
  CheckpointWriter writer({.dir = dir.path()});
  writer.save(saved);
  writer.wait();
  const Checkpoint loaded = load_checkpoint(dir.path() / "step-00000001");
  const RunState read = read_state(loaded.state, "test");
  check_tensors(loaded, read, config, at::kDouble, "test");
  auto to = std::make_unique<Learner>(weights_of(loaded), at::kDouble, parallel::self_comm());
  restore_learner(loaded, read, config, *to);
  to->begin_stage(config, stage, false);
  return to;
}

TEST(SilentBugs, ExpertMomentsAreRestored) {
  const auto whole = make_learner(balanced());
  const StepBatch batch = random_batch({{9, 14}, {30}}), next = random_batch({{11, 25}}, 99);
  whole->step(batch, 1e-2, 1, 1);
  const auto resumed = taken_over(*whole, balanced());
  int experts = 0;
  for (const auto& [name, parameter] : whole->optimizer().parameters()) {
    const AdamW::Parameter& other = resumed->optimizer().parameters().at(name);
    EXPECT_TRUE(at::equal(parameter.m, other.m) && at::equal(parameter.v, other.v)) << name;
    EXPECT_EQ(parameter.steps, other.steps) << name;
    experts += name.find("experts") != std::string::npos && parameter.m.abs().max().item<double>() > 0;
  }
  EXPECT_EQ(experts, 6) << "two in each of three layers, all with a moment to lose";
  expect_equal_bias(bias_of(*whole), bias_of(*resumed));
  whole->step(next, 1e-2, 1, 2);
  resumed->step(next, 1e-2, 1, 2);
  EXPECT_EQ(greatest_difference(whole->masters(), resumed->masters()), 0);
}

TEST(SilentBugs, DataOrderDoesNotDependOnHowOftenTheRunWasStopped) {
  const test::TemporaryDirectory dir;
  std::vector<std::string> texts;
  for (int i = 0; i < 30; ++i) texts.push_back("document " + std::to_string(i));
  std::vector<data::MixtureSource> sources = {{"test", test::text_dataset(dir.path() / "d", texts), 1, 0}};
  const auto mixture = [&] { return std::make_shared<data::Mixture>(sources, 5, 32); };
  const BatchConfig config{.sequence_length = 32, .tokens = 64};
  std::vector<std::string> whole, stopped;
  BatchLoader loader(mixture(), config, {}, 0);
  uint64_t next = 0;
  for (int step = 0; step < 20; ++step) {
    for (const std::string& name : loader.next(step < 19).documents) whole.push_back(name);
    // A new process each time, which looks ahead further than it trains; the global generator moves meanwhile.
    at::randn({7});
    BatchLoader fresh(mixture(), config, {}, next);
    const StepBatch batch = fresh.next(true);
    for (const std::string& name : batch.documents) stopped.push_back(name);
    next = batch.next_sample;
  }
  EXPECT_EQ(whole, stopped);
}

MicroBatch masked(const std::vector<int64_t>& lengths) {
  MicroBatch micro = random_batch({lengths}, 55).micro.at(0);
  micro.target_rows = micro.targets = at::empty({0}, at::kLong);
  micro.target_source.clear();
  micro.target_position.clear();
  return micro;
}

TEST(SilentBugs, AllMaskedMicroBatch) {
  StageConfig stage = plain_stage();
  stage.optimizer.weight_decay = 0.1;
  const StepBatch plain = random_batch({{9, 14}});
  StepBatch mixed = plain;
  mixed.micro.insert(mixed.micro.begin(), masked({8, 3}));
  mixed.num_tokens += 11;
  const auto a = make_learner(stage), b = make_learner(stage);
  const StepResult without = a->step(plain, 1e-2, 1, 1), with = b->step(mixed, 1e-2, 1, 1);
  EXPECT_EQ(with.loss, without.loss);
  EXPECT_EQ(greatest_difference(a->masters(), b->masters()), 0);

  StepBatch nothing;
  nothing.micro = {masked({5}), masked({7, 2})};
  nothing.num_tokens = 14;
  const auto before = copies(a->masters());
  const StepResult result = a->step(nothing, 1e-2, 1, 2);
  EXPECT_EQ(result.grad_norm, 0);
  EXPECT_TRUE(std::isfinite(result.loss));
  EXPECT_EQ(greatest_difference(a->masters(), before), 0) << "not even decay";
}

// One document of one token: some experts get nothing in this step.
TEST(SilentBugs, ExpertsWithoutTokensHaveZeroGradientNotNan) {
  const auto learner = make_learner(balanced());
  const StepResult result = learner->step(random_batch({{3}}), 1e-2, 1, 1);
  for (const int layer : {0, 1, 3})
    for (const char* part : {"gate_up_proj", "down_proj"}) {
      const auto& parameter =
          learner->optimizer().parameters().at(fmt::format("model.layers.{}.feed_forward.experts.{}", layer, part));
      int empty = 0, learning = 0;
      for (int64_t e = 0; e < 4; ++e) {
        const double greatest = parameter.m[e].abs().max().item<double>();
        ASSERT_TRUE(std::isfinite(greatest));
        const bool used = result.routing[layer].expert_rows[e] > 0;
        if (!used) {
          EXPECT_EQ(greatest, 0) << layer << " " << part << " " << e;
        }
        learning += greatest > 0;
        empty += !used;
      }
      EXPECT_GT(empty, 0);
      EXPECT_GT(learning, 0);
    }
}

TEST(SilentBugs, ExpertsReallyTrain) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const auto learner = make_learner(balanced(), dtype);
    const auto before = copies(learner->masters());
    std::vector<std::vector<int64_t>> rows(4, std::vector<int64_t>(4, 0));
    for (int64_t step = 1; step <= 3; ++step) {
      const StepResult result = learner->step(random_batch({{40, 40}}, 100 * step), 1e-2, 1, step);
      for (const int layer : {0, 1, 3})
        for (int e = 0; e < 4; ++e) rows[layer][e] += result.routing[layer].expert_rows[e];
    }
    for (const int layer : {0, 1, 3})
      for (const char* part : {"gate_up_proj", "down_proj"}) {
        const std::string name = fmt::format("model.layers.{}.feed_forward.experts.{}", layer, part);
        for (int64_t e = 0; e < 4; ++e)
          EXPECT_EQ(!at::equal(learner->masters().at(name)[e], before.at(name)[e]), rows[layer][e] > 0) << name << e;
      }
    for (const auto& [name, tensor] : before)
      if (name.find("experts") == std::string::npos) {
        EXPECT_FALSE(at::equal(learner->masters().at(name), tensor)) << name << " is in the model and does not learn";
      }
  }
}

// The optimizer, the checkpoint and the model call every weight by one name, and each name leads back from the export.
TEST(SilentBugs, ExportedNamesMatch) {
  const auto learner = make_learner(plain_stage(), at::kFloat, false, /*vision=*/true);
  const auto rows = arch::parameter_table(learner->model().config());
  EXPECT_EQ(rows.size(), learner->optimizer().parameters().size());
  EXPECT_EQ(rows.size(), learner->masters().size());
  for (const arch::ParamRow& row : rows) {
    ASSERT_TRUE(learner->optimizer().parameters().contains(row.name)) << row.name;
    EXPECT_EQ(learner->optimizer().parameters().at(row.name).weight.const_data_ptr(),
              learner->masters().at(row.name).const_data_ptr());
    EXPECT_EQ(learner->model().weights().at(row.name).dense.const_data_ptr(),
              learner->masters().at(row.name).const_data_ptr())
        << row.name << ": trained, but not what is saved";
    EXPECT_EQ(arch::from_hf_name(arch::hf_name(learner->model().config(), row)), row.name);
  }
}

// Counts and positions of long runs: each value here is another one in 32 bits.
TEST(SilentBugs, IndicesBeyond32Bits) {
  const int64_t large = int64_t{3} << 31;
  std::vector<model::RoutingStatistics> routing(1);
  routing[0] = {{3 * large, large}, {0, 0}, 0, 0, 4 * large};
  EXPECT_THAT(layer_loads(routing).at(0).load, testing::ElementsAre(0.75, 0.25));
  at::Tensor bias = at::zeros({2});
  update_selection_bias(bias, routing[0].expert_rows, 0.5);
  EXPECT_LT(bias[0].item<float>(), 0);

  const test::TemporaryDirectory dir;
  const data::Mixture mixture({{"test", test::text_dataset(dir.path() / "d", {"one", "two", "three", "four"}), 1, 0}},
                              5, 32);
  const uint64_t first = (uint64_t{1} << 33) + 1;
  const StepBatch batch = make_step_batch(mixture, {.sequence_length = 32, .tokens = 96}, {}, first);
  EXPECT_EQ(batch.next_sample, first + batch.documents.size());
  std::string far, near;
  for (uint64_t n = 0; n < 64; ++n) {
    far += fmt::format("{} ", mixture.at(first + n).document);
    near += fmt::format("{} ", mixture.at(1 + n).document);
  }
  EXPECT_NE(far, near) << "the same samples again after 2^32 of them";

  RunState state;
  state.config = Json::object();
  state.next_sample = state.tokens = state.metrics_bytes = state.adam_steps["w"] = large;
  const RunState read = read_state(Json::parse(to_json(state).dump()), "test");
  for (const int64_t value : {read.next_sample, read.tokens, read.metrics_bytes, read.adam_steps.at("w")})
    EXPECT_EQ(value, large);
  StepReport report;
  report.step = report.all_tokens = report.tokens = large;
  const Json line = Json::parse(metrics_line(report, {}, false));
  EXPECT_EQ(line["step"], large);
  EXPECT_EQ(line["tokens"], large);
}

// Pushing every score towards zero must not lower the auxiliary loss of a sigmoid router.
TEST(SilentBugs, ShrinkingScoresDoNotLowerTheLoadBalanceLoss) {
  StageConfig stage = plain_stage();
  stage.balance.load_balance_weight = 1;
  const StepBatch batch = random_batch({{30}});
  const auto loss_of = [&](double added) {
    const auto learner = make_learner(stage);
    auto& masters = learner->masters();
    masters.at("model.embed_tokens.weight").detach().select(1, 0).fill_(10);  // the same for every token, in all layers
    for (const int layer : {0, 1, 3})
      masters.at(fmt::format("model.layers.{}.feed_forward.router.weight", layer)).detach().select(1, 0).add_(added);
    return learner->step(batch, 1e-3, 1, 1).auxiliary_loss;
  };
  for (const double added : {0.0, -5.0})
    EXPECT_GE(loss_of(added), 3 * 0.99) << "1 for each of three layers when balanced; added: " << added;
}

}  // namespace
}  // namespace puna::train
