// Lines of metrics, outliers, and the file that a resumed run cuts back.
#include "train/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "io/file.h"
#include "tests/support/golden.h"

namespace puna::train {
namespace {

using testing::HasSubstr;

TEST(Outliers, AreMeasuredInDeviationsOfTheValuesBefore) {
  OutlierDetector detector;
  for (int i = 0; i < 32; ++i) EXPECT_EQ(detector.push(i % 2 == 0 ? 1 : 3), 0) << "too few to tell";
  EXPECT_DOUBLE_EQ(detector.push(7), 5) << "mean 2, deviation 1";
  EXPECT_LT(detector.push(7), 5) << "the first one counts now";
}

TEST(Outliers, OnlyTheWindowCountsAndEqualValuesAreNone) {
  OutlierDetector detector;
  detector.push(1e9);
  for (int i = 0; i < 128; ++i) detector.push(2);
  EXPECT_EQ(detector.push(3), 0) << "no deviation to measure in, and 1e9 is forgotten";
}

TEST(Outliers, StateGoesThroughAFile) {
  OutlierDetector a, b;
  for (int i = 0; i < 100; ++i) a.push(std::sin(i) / 3);
  b.restore(Json::parse(a.state().dump()));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(a.push(std::cos(i)), b.push(std::cos(i)));
}

StepReport report(int64_t step) {
  StepReport report;
  report.step = step;
  report.stage = std::string(1, 's');  // a literal makes this compiler warn of an overflow that is none
  report.result.loss = 1.0 / 3;
  report.result.grad_norm = 0.1;
  report.result.by_source = {{1.5, 3}, {0, 0}};
  report.result.by_position = {{2, 1}, {0, 0}, {3, 2}};
  report.result.auxiliary_loss = 0.25;
  report.learning_rate = 1e-3;
  report.tokens = 4;
  report.all_tokens = 4 * step;
  report.targets = 3;
  report.seconds = 1 + 0.001 * static_cast<double>(step);
  return report;
}

TEST(Outliers, LossAndNormAreJudgedApartAndOnlyAbove) {
  OutlierDetector losses, norms;
  StepReport step = report(1);
  for (int i = 0; i < 40; ++i) {
    step.result.loss = step.result.grad_norm = i % 2 == 0 ? 1 : 3;
    judge(step, 3, losses, norms);
    EXPECT_FALSE(step.loss_outlier || step.norm_outlier) << i;
  }
  const Json before = losses.state();
  StepReport masked = report(2);
  masked.targets = 0;
  masked.result.loss = masked.result.grad_norm = 0;
  judge(masked, 3, losses, norms);
  EXPECT_EQ(losses.state(), before) << "nothing was measured";
  step.result.loss = 50;
  step.result.grad_norm = -50;
  judge(step, 3, losses, norms);
  EXPECT_TRUE(step.loss_outlier);
  EXPECT_FALSE(step.norm_outlier);
}

TEST(Metrics, ALineHoldsNothingThatDependsOnTime) {
  StepReport a = report(3), b = report(3);
  b.seconds = 99;
  b.data_wait_seconds = 5;
  b.mfu = 0.5;
  b.flops = 1e9;
  EXPECT_EQ(metrics_line(a, {"x", "y"}, true), metrics_line(b, {"x", "y"}, true));
  const Json line = Json::parse(metrics_line(a, {"x", "y"}, true));
  EXPECT_EQ(line["loss"], 1.0 / 3) << "every digit";
  EXPECT_EQ(line["source_loss"], Json::object({{"x", 0.5}})) << "a source without targets has no loss";
  EXPECT_EQ(line["position_loss"], Json::array({2.0, nullptr, 1.5}));
  EXPECT_EQ(line["auxiliary_loss"], 0.25);
  EXPECT_FALSE(line.contains("loss_z"));
  a.loss_outlier = true;
  a.loss_z = 7.5;
  a.warnings = {"w"};
  const Json flagged = Json::parse(metrics_line(a, {"x", "y"}, false));
  EXPECT_EQ(flagged["loss_z"], 7.5);
  EXPECT_EQ(flagged["warnings"], Json::array({"w"}));
  EXPECT_FALSE(flagged.contains("source_loss"));
}

TEST(Metrics, AResumedRunWritesTheSameBytesAgain) {
  const test::TemporaryDirectory dir;
  int64_t after_two = 0;
  {
    RunLog log(dir.path(), 0);
    for (int64_t step = 1; step <= 5; ++step) {
      log.write(report(step), {"x", "y"}, step % 2 == 0);
      if (step == 2) after_two = log.metrics_bytes();
    }
    log.sync();
  }
  const std::string whole = io::read_file(dir.path() / "metrics.jsonl", 1 << 20);
  {
    RunLog log(dir.path(), after_two);
    for (int64_t step = 3; step <= 5; ++step) log.write(report(step), {"x", "y"}, step % 2 == 0);
  }
  EXPECT_EQ(io::read_file(dir.path() / "metrics.jsonl", 1 << 20), whole);
  const auto open_files = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
  };
  const auto before = open_files();
  try {
    RunLog log(dir.path(), 1 << 20);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("metrics.jsonl"));
  }
  EXPECT_EQ(open_files(), before);
}

}  // namespace
}  // namespace puna::train
