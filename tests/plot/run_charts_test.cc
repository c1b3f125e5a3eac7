// What `puna plot` makes of a run's metrics, and what it says of files that are none.
#include "plot/run_charts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "io/file.h"
#include "plot/run_metrics.h"
#include "tests/plot/support.h"
#include "tests/support/golden.h"

namespace puna::plot {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

fs::path write_run(const fs::path& dir, const std::string& metrics) {
  fs::create_directories(dir);
  io::write_file(dir / "metrics.jsonl", metrics);
  return dir;
}

std::string line(int step, double loss) {
  return fmt::format(
      R"({{"step": {0}, "stage": "{2}", "loss": {1}, "grad_norm": 0.5, "learning_rate": 1e-3, "tokens": {0},)"
      R"( "source_loss": {{"text": {1}, "images": 2}}, "experts": [{{"layer": 1, "load": [0.75, 0.25], "entropy": 1.3, "load_entropy": 0.5,)"
      R"( "max_violation": 0.5, "image_share": [0, 1]}}, {{"layer": 3, "load": [3, 1]}}], "position_loss": [4, 3, 2]}})"
      "\n",
      step, loss, step < 50 ? "pretrain" : "chat");
}

std::string run_of(int steps) {
  std::string text;
  for (int i = 0; i < steps; ++i) text += line(10 * i, 5 - 0.01 * i);
  text += "{\"step\": 30, \"eval\": {\"loss\": 4.5, \"source_loss\": {\"held\": 4.5}}}\n";
  return text;
}

RunMetrics read_text(const std::string& text) {
  const test::TemporaryDirectory dir;
  return read_run(write_run(dir.path(), text));
}

std::string message_of(const std::string& text) {
  try {
    read_text(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(RunMetrics, AreReadAsWritten) {
  const RunMetrics run = read_text(run_of(20));
  EXPECT_EQ(run.loss.steps.size(), 20u);
  EXPECT_DOUBLE_EQ(run.loss.values[19], 4.81);
  EXPECT_THAT(run.eval_loss.steps, ElementsAre(30));
  EXPECT_THAT(run.eval_loss.values, ElementsAre(4.5));
  EXPECT_EQ(run.source_loss.at("images").values.back(), 2);
  EXPECT_THAT(run.eval_source_loss.at("held").values, ElementsAre(4.5));
  EXPECT_EQ(run.layers.at(1).entropy.values.size(), 20u);
  EXPECT_THAT(run.layers.at(1).load.columns().back().sums, ElementsAre(1.5, 0.5));  // 1 is even
  EXPECT_THAT(run.layers.at(3).load.columns().back().sums, ElementsAre(1.5, 0.5));  // counts do as well
  EXPECT_THAT(run.stages, ElementsAre(testing::Pair(0, "pretrain"), testing::Pair(50, "chat")));
  EXPECT_TRUE(run.notes.empty());
}

TEST(RunMetrics, ALastLineCutShortIsPassedOverWithANote) {
  const std::string whole = run_of(3);
  const RunMetrics cut = read_text(whole + "{\"step\": 40, \"lo");
  EXPECT_EQ(cut.loss.steps.size(), 3u);
  ASSERT_EQ(cut.notes.size(), 1u);
  EXPECT_THAT(cut.notes[0], HasSubstr("metrics.jsonl:5 is cut short"));
  const RunMetrics unended = read_text(whole + "{\"step\": 40, \"loss\": 1}");
  EXPECT_EQ(unended.loss.steps.size(), 4u);
  EXPECT_TRUE(unended.notes.empty());
}

TEST(RunMetrics, BadLinesAreNamedByNumber) {
  const std::string good = "{\"step\": 1, \"loss\": 2}\n";
  for (const auto& [bad, part] : std::vector<std::pair<std::string, std::string>>{
           {"{\"step\": 2, \"lo", "not valid JSON"},
           {"[1]", "must be a JSON object"},
           {"{\"loss\": 1}", "lacks the number 'step'"},
           {"{\"step\": \"2\"}", "lacks the number 'step'"},
           {"{\"step\": 2, \"loss\": \"x\"}", "'loss' must be a number"},
           {"{\"step\": 2, \"stage\": 1}", "'stage' must be a string"},
           {"{\"step\": 2, \"eval\": 1}", "'eval' must be an object"},
           {"{\"step\": 2, \"source_loss\": [1]}", "'source_loss' must be an object"},
           {"{\"step\": 2, \"eval\": {\"source_loss\": 1}}", "'source_loss' must be an object"},
           {"{\"step\": 2, \"experts\": {}}", "'experts' must be an array"},
           {"{\"step\": 2, \"experts\": [{\"load\": [1]}]}", "lacks 'layer'"},
           {"{\"step\": 2, \"experts\": [{\"layer\": 99999999999}]}", "lacks 'layer'"},
           {"{\"step\": 2, \"experts\": [{\"layer\": 1, \"load\": []}]}", "has 0 experts"},
           {"{\"step\": 2, \"experts\": [{\"layer\": 1, \"load\": [\"x\"]}]}", "'load' must be a number"},
           {"{\"step\": 2, \"position_loss\": 3}", "'position_loss' must be an array"}})
    EXPECT_THAT(message_of(fmt::format("{}{}\n{}", good, bad, good)),
                AllOf(HasSubstr("metrics.jsonl:2]"), HasSubstr(part)))
        << bad;
  EXPECT_THAT(message_of(good + std::string((16 << 20) + 1, ' ') + "\n"), HasSubstr("more than the limit"));
  const test::TemporaryDirectory dir;
  EXPECT_THROW(read_run(dir.path()), Error);
  EXPECT_THROW(read_run(dir.path() / "none"), Error);
}

TEST(RunMetrics, NullIsAGapAndAStepThatComesAgainReplaces) {
  const RunMetrics run = read_text(
      "{\"step\": 1, \"loss\": 5}\n{\"step\": 2, \"loss\": null}\n{\"step\": 3, \"loss\": 3}\n{\"step\": 3, \"loss\": "
      "2}\n\n");
  EXPECT_THAT(run.loss.steps, ElementsAre(1, 2, 3));
  EXPECT_TRUE(std::isnan(run.loss.values[1]));
  EXPECT_EQ(run.loss.values[2], 2);
}

TEST(ExpertHistory, LongRunsAreAveragedIntoBoundedColumns) {
  ExpertHistory history;
  for (int step = 0; step < 1000; ++step) history.add(step, {step < 500 ? 0.0 : 2.0, 1.0});
  const auto& columns = history.columns();
  EXPECT_LE(columns.size(), ExpertHistory::kMaxColumns);
  EXPECT_GE(columns.size(), ExpertHistory::kMaxColumns / 2);
  int64_t total = 0;
  for (size_t i = 0; i < columns.size(); ++i) {
    EXPECT_EQ(columns[i].step, static_cast<double>(total));
    total += columns[i].count;
    EXPECT_EQ(columns[i].sums[1], static_cast<double>(columns[i].count));
  }
  EXPECT_EQ(total, 1000);
  EXPECT_EQ(columns.front().sums[0], 0);
  EXPECT_EQ(columns.back().sums[0], 2.0 * static_cast<double>(columns.back().count));
}

std::string svg_of(const std::vector<RunMetrics>& runs, const std::vector<std::string>& kinds) {
  const std::string svg = to_svg(chart_runs(runs, kinds, 0));
  EXPECT_EQ(xml_error(svg), "");
  return svg;
}

TEST(RunCharts, AllPicturesThatThereIsDataFor) {
  const std::vector<RunMetrics> runs = {read_text(run_of(20))};
  EXPECT_EQ(chart_runs(runs, {}, 0.9).panels.size(), 5u + 2 + 3 + 1);
  const std::string svg = svg_of(runs, {});
  for (const char* label : {"Loss", "Loss by source", "Gradient norm", "Learning rate", "Loss by position", "training",
                            "evaluation", "held, evaluation", "chat", "Expert load, layer 1", "Expert load, layer 3",
                            "Image tokens, layer 1", "Entropy of the expert load", "Entropy of the router",
                            "Maximum violation", "optimizer step", "load (1 = even)"})
    EXPECT_THAT(svg, HasSubstr(fmt::format(">{}<", label)));
  EXPECT_EQ(chart_runs(std::vector{read_text("{\"step\": 1, \"loss\": 2}\n")}, {}, 0).panels.size(), 1u);
}

TEST(RunCharts, RunsAreOverlaidByName) {
  std::vector<RunMetrics> runs = {read_text(run_of(40)), read_text(run_of(50))};
  runs[0].name = "runs/a<b>";
  runs[1].name = "runs/b";
  const std::string svg = svg_of(runs, {"loss", "position"});
  EXPECT_THAT(svg, AllOf(HasSubstr(">runs/a&lt;b&gt;, training<"), HasSubstr(">runs/b, evaluation<")));
  EXPECT_THAT(line_sizes(svg, kFirstColor), ElementsAre(2, 2, 40, 2, 3));  // the evaluation has one point
}

// Bucket i begins at position 2^i; a record of short documents has fewer, and one that nothing fell into is null.
TEST(RunCharts, PositionsAreAveragedByBucket) {
  const auto run =
      read_text("{\"step\": 1, \"position_loss\": [4, 3]}\n{\"step\": 2, \"position_loss\": [2, null, 1]}\n");
  const Figure figure = chart_runs(std::vector{run}, {"position"}, 0);
  const auto& series = std::get<LineChart>(figure.panels[0]).series;
  ASSERT_EQ(series.size(), 1u);
  EXPECT_THAT(series[0].x, ElementsAre(1, 2, 4));
  EXPECT_THAT(series[0].y, ElementsAre(3, 3, 1));
}

TEST(RunCharts, OnlyTrainingLossesAreSmoothed) {
  const Figure figure = chart_runs(std::vector{read_text(run_of(20))}, {"loss"}, 0.9);
  const auto& series = std::get<LineChart>(figure.panels[0]).series;
  ASSERT_EQ(series.size(), 2u);
  EXPECT_EQ(series[0].smoothing, 0.9);
  EXPECT_EQ(series[1].smoothing, 0);
}

TEST(RunCharts, LongCurvesAreThinnedToTheirMeans) {
  std::string text;
  for (int i = 0; i < 10'000; ++i) text += fmt::format("{{\"step\": {}, \"loss\": {}}}\n", i, 2 + (i % 2));
  const std::string svg = svg_of({read_text(text)}, {"loss"});
  EXPECT_THAT(line_sizes(svg, kFirstColor), ElementsAre(2, 2000));
}

TEST(RunCharts, WhatCannotBeDrawnIsSaid) {
  const std::vector<RunMetrics> runs = {read_text("{\"step\": 1, \"loss\": 2}\n")}, none = {read_text("")};
  const auto message = [](const std::vector<RunMetrics>& of, const std::vector<std::string>& kinds) -> std::string {
    try {
      chart_runs(of, kinds, 0);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_THAT(message(runs, {"expert"}), AllOf(HasSubstr("did you mean 'experts'?"), HasSubstr("loss, sources")));
  EXPECT_THAT(message(runs, {"zzzzzzzz"}), HasSubstr("no picture 'zzzzzzzz'; there are"));
  EXPECT_THAT(message(runs, {"loss", "experts"}), HasSubstr("nothing to draw 'experts' of"));
  EXPECT_THAT(message(none, {}), HasSubstr("nothing to draw yet"));
  EXPECT_THAT(message({read_text("{\"step\": 1, \"loss\": null}\n")}, {}), HasSubstr("nothing to draw yet"));
}

}  // namespace
}  // namespace puna::plot
