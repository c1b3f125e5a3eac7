// What is wrong with a dataset, a recipe or a run, as a user meets it: one line, and a mended recipe may start.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <thread>

#include "base/json.h"
#include "io/file.h"
#include "tests/cli/support.h"
#include "tests/support/golden.h"
#include "tests/train/tiny_text.h"

namespace puna::cli {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const std::string kRecipe = R"(
steps = 2
threads = 1
[model]
vocab_size = 290
[model.config]
)" + test::kTinyText + R"(max_position_embeddings = 128
use_qk_norm = true
rms_norm_eps = 1e-5
[batch]
tokens = 64
sequence_length = 64
[[source]]
name = "sums"
generate = "arithmetic"
documents = 50
)";

class TrainCommand : public testing::Test {
 protected:
  TrainCommand() { io::write_file(path("r.toml"), kRecipe); }
  std::string path(const std::string& name) const { return (dir_.path() / name).string(); }
  Outcome train(std::vector<std::string> more = {}) const {
    more.insert(more.begin(), {"train", path("r.toml"), "out=" + path("run")});
    return puna(more);
  }

 private:
  test::TemporaryDirectory dir_;
};

TEST_F(TrainCommand, WhatIsWrongIsSaidInOneLine) {
  expect_error(puna({"train"}), 2, "no recipe");
  expect_error(puna({"train", path("none.toml")}), 1, "none.toml] cannot be opened");
  expect_error(train({"--max-steps", "-1"}), 2, "--max-steps: is -1; it must not be negative");
  expect_error(train({"--resume"}), 1, "holds no run to resume; leave out --resume");
  expect_error(train({"optimizer.learing_rate=1"}), 1, "did you mean 'learning_rate'?");
  expect_error(train({"model.config.hiden_size=8"}), 1, "hidden_size");
  expect_error(train({"model.config.vocab_size=300"}), 1, "'model.config.vocab_size' is 300, the tokenizer has 290");
  expect_error(train({"model.config.rms_norm_eps=0"}), 1, "[model.config]] rms_norm_eps is 0");
  expect_error(puna({"plot", path("run")}), 1, "metrics.jsonl] is missing");
  expect_error(train({"source.sums.name=../up"}), 1, "cannot have a directory of this name");
  expect_error(train({"source.sums.generate=arithmetc"}), 1, "did you mean 'arithmetic'?");
  expect_error(train({"source.sums.generate=arithmetc"}), 1, "r.toml] source 'sums': ");
  expect_error(train({"source.sums.file=facts.jsonl"}), 1, "'file' has no effect on arithmetic; leave it out");
  expect_error(train({"source.sums.length=64"}), 1, "'length' has no effect on arithmetic; leave it out");
  expect_error(train({"model.max_tiles=4"}), 1, "'model.max_tiles' has no effect: the model has no vision");
  expect_error(train({"model.generation={temperature=-1}"}), 1, "[model.generation]] ");
  expect_error(train({"model.generation={top_p=1.5}"}), 1, "[model.generation]] [--top-p] is 1.5");
  expect_error(train({"out=" + path("r.toml")}), 1, "cannot be made");
  expect_error(puna({"export", path("none"), "--out", path("model")}), 1, "no directory of a run");
  EXPECT_FALSE(fs::exists(path("model")));
}

TEST_F(TrainCommand, WhatDoesNotFitInMemoryIsRefusedBeforeDataAreBuilt) {
  expect_error(train({"model.config.hidden_size=65536", "model.config.num_hidden_layers=1000"}), 1, "are free; use a");
  EXPECT_FALSE(fs::exists(path("run/data")));
  EXPECT_EQ(train({"--no-memory-check"}).status, 0);
}

TEST_F(TrainCommand, ADryRunCountsWhatItThenRefuses) {
  const Outcome outcome = train({"--dry-run", "model.config.hidden_size=65536", "model.config.num_hidden_layers=1000"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("are free; use a"));
  EXPECT_THAT(outcome.out, testing::ContainsRegex("parameters +[1-9][0-9]{9}"));
  EXPECT_THAT(outcome.out, testing::ContainsRegex("activations, least +[1-9]"));
  EXPECT_THAT(outcome.out, testing::ContainsRegex("train +2 +[1-9][0-9]+ +[1-9][0-9.]+ +- +-\n"));
  const Outcome json = train({"--dry-run", "--json", "batch.sequence_length=4096", "batch.tokens=4096"});
  EXPECT_EQ(json.status, 1);
  EXPECT_THAT(json.err, HasSubstr("max_position_embeddings is 128"));
  const Json plan = Json::parse(json.out);
  EXPECT_TRUE(plan["refused"].get<bool>());
  EXPECT_GT(plan["parameters"], 10000);
  EXPECT_EQ(plan["stages"][0]["steps"], 2);
}

TEST_F(TrainCommand, ADryRunPrintsWhatARunTakes) {
  const Outcome outcome = train({"--dry-run"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  for (const char* line : {"memory, counted\n  weights +[1-9]", "memory, measured\n  program +[1-9]", "  all +[1-9]",
                           "  free +[1-9]", "train +2 +[1-9][0-9]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ s\n",
                           "tokenizer and datasets +[0-9.]+ s\n", "as it is now +[0-9.]+ s\n"})
    EXPECT_THAT(outcome.out, testing::ContainsRegex(line));
}

TEST_F(TrainCommand, TheLineToGoOnWithCanBeTypedAsItIs) {
  const Outcome stopped = train({"--max-steps", "1", "schedule={kind='constant'}", "steps=3"});
  ASSERT_EQ(stopped.status, 0) << stopped.err;
  EXPECT_THAT(stopped.out, HasSubstr(R"( 'schedule={kind='\''constant'\''}' steps=3 --resume)"));
}

TEST_F(TrainCommand, SigtermSavesAndStops) {
  std::atomic<bool> over = false;
  std::thread killer([&] {
    while (!over && (!fs::exists(path("run/metrics.jsonl")) || fs::file_size(path("run/metrics.jsonl")) == 0))
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (!over) kill(getpid(), SIGTERM);
  });
  const Outcome stopped = train({"steps=1000000"});
  over = true;
  killer.join();
  EXPECT_EQ(stopped.status, 143) << stopped.err;
  EXPECT_THAT(stopped.out, HasSubstr("Stopped and saved"));
  EXPECT_TRUE(fs::exists(path("run/checkpoints/latest")));
}

TEST_F(TrainCommand, AMendedRecipeStartsWhereNothingWasTrained) {
  expect_error(train({"batch.sequence_length=4096", "batch.tokens=4096"}), 1, "max_position_embeddings is 128");
  fs::remove_all(path("run"));
  expect_error(train({"source.sums.generate=arithmetc"}), 1, "did you mean 'arithmetic'?");
  expect_error(puna({"export", path("run"), "--out", path("model")}), 1, "has no checkpoint yet");
  const Outcome trained = train();
  ASSERT_EQ(trained.status, 0) << trained.err;
  expect_error(train(), 1, "holds a run already; go on with --resume");
  expect_error(train({"--resume", "steps=3"}), 1, "steps was 2, is 3");
  expect_error(puna({"export", path("run"), "--step", "7", "--out", path("model")}), 1,
               "step-00000007] is not there; the run has checkpoints of the steps 2");
  EXPECT_FALSE(fs::exists(path("model")));
}

TEST_F(TrainCommand, GroupsOfCommandsAloneShowTheirHelp) {
  for (const char* group : {"data", "tokenizer"}) {
    const Outcome outcome = puna({group});
    EXPECT_EQ(outcome.status, 2);
    EXPECT_THAT(outcome.err, HasSubstr("Usage: puna " + std::string(group)));
  }
  expect_error(puna({"data", "build"}), 2, "is required; see puna data build --help");
}

TEST_F(TrainCommand, ModelsAndTextsOfAnEvaluationMustBeThere) {
  io::write_file(path("empty"), "");
  expect_error(puna({"eval", path("none")}), 1, "there is no such file or directory");
  expect_error(puna(on_demo("eval", {"--needle", "--haystack", path("empty")})), 1, "is empty");
  expect_error(puna(on_demo("eval", {"--needle", "--plot", path("none/heat.svg")})), 1, "cannot be written");
  expect_error(puna(on_demo("eval", {"--needle", "--seed", "-1"})), 2, "must not be negative");
}

}  // namespace
}  // namespace puna::cli
