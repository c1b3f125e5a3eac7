// The trainer's own step against transformers and torch.optim.AdamW: twenty golden steps of two models.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "checkpoint/model_source.h"
#include "tests/model/support.h"
#include "tests/train/support.h"

namespace puna::train {
namespace {

namespace fs = std::filesystem;

// Rows [B, T] as one micro-batch, or as one each.
StepBatch batch_of(const at::Tensor& tokens_BT, bool split) {
  const int64_t B = tokens_BT.size(0), T = tokens_BT.size(1);
  StepBatch batch = test::random_batch({std::vector<int64_t>(B, T)});
  MicroBatch& micro = batch.micro[0];
  micro.tokens = tokens_BT.flatten();
  micro.targets = tokens_BT.narrow(1, 1, T - 1).flatten();
  return split ? test::rearranged(batch, std::vector<int64_t>(B, 1)) : batch;
}

TEST(GoldenRun, TwentyStepLosses) {
  int compared = 0;
  for (const fs::path& dir : test::golden_directories("training")) {
    const Json golden = read_json_file(dir / "train.json");
    const auto source = checkpoint::open_model(dir.parent_path().parent_path() / "ckpt" / dir.filename());
    std::map<std::string, at::Tensor> masters;
    for (const arch::ParamRow& row : source->rows()) masters[row.name] = source->load(row, at::kFloat).clone();
    StageConfig stage;
    stage.freeze = {"vision"};
    stage.optimizer.beta1 = golden.at("betas")[0];
    stage.optimizer.beta2 = golden.at("betas")[1];
    stage.optimizer.epsilon = golden.at("eps");
    stage.optimizer.weight_decay = golden.at("weight_decay");
    stage.optimizer.clip_norm = golden.at("clip");
    Learner learner(masters, at::kFloat, parallel::self_comm());
    learner.begin_stage(source->config(), stage, /*recompute=*/compared > 0);
    // The goldens decay every parameter.
    for (auto& [name, parameter] : learner.optimizer().parameters()) parameter.decayed = true;
    const at::Tensor tokens = test::read_tensors(dir / "tokens.safetensors").at("tokens");
    for (int64_t s = 0; s < tokens.size(0); ++s) {
      SCOPED_TRACE(dir / fmt::format("step {}", s + 1));
      const StepResult result = learner.step(batch_of(tokens[s], s % 2 == 1), golden.at("lr"), 1, s + 1);
      const Json& row = golden.at("steps").at(s);
      EXPECT_NEAR(result.loss, row.at("loss").get<double>(), 1e-3);
      EXPECT_NEAR(result.grad_norm / row.at("grad_norm_before_clip").get<double>(), 1, 1e-3);
      ++compared;
    }
    double sum = 0;
    for (const auto& [name, parameter] : learner.optimizer().parameters())
      sum += std::pow(at::norm(parameter.weight).item<double>(), 2);
    EXPECT_NEAR(std::sqrt(sum) / golden.at("total_l2").get<double>(), 1, 1e-5);
  }
  EXPECT_GE(compared, 20);
}

}  // namespace
}  // namespace puna::train
