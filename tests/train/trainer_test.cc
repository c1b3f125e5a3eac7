// Whole runs: being stopped early, going on, and what a checkpoint must hold for that.
#include "train/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "io/directory.h"
#include "io/file.h"
#include "tests/support/golden.h"
#include "tests/train/tiny_text.h"
#include "train/checkpoint.h"
#include "train/dry_run.h"
#include "train/export.h"
#include "train/learner.h"

namespace puna::train {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const std::string kRecipe = R"(
steps = 4
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
[balance]
bias_rate = 0.01
[checkpoint]
every = 1
keep_last = 0
[[source]]
name = "sums"
generate = "arithmetic"
documents = 50
[[source]]
name = "notes"
files = ["notes.txt"]
)";

TrainOptions resuming(int64_t stop_after = 0) {
  TrainOptions options;
  options.resume = true;
  options.stop_after = stop_after;
  return options;
}

TrainOptions stopping(int64_t stop_after) {
  TrainOptions options;
  options.stop_after = stop_after;
  return options;
}

class Trainer : public testing::Test {
 protected:
  Trainer() { io::write_file(dir() / "notes.txt", "The quick brown fox jumps over the lazy dog."); }

  fs::path dir() const { return dir_.path(); }
  Recipe recipe(const std::string& out = "run") const {
    Recipe recipe = parse_recipe(kRecipe, "recipe", dir());
    recipe.out = (dir() / out).string();
    return recipe;
  }
  std::string metrics(const std::string& out = "run") const {
    return io::read_file(dir() / out / "metrics.jsonl", 1 << 20);
  }
  /// Changes the newest checkpoint, of step 3, of a copy of the run "stopped"; what is then said on exporting the model
  /// and on going on with the run.
  std::string resumed(const std::function<void(Checkpoint&)>& change) const {
    const fs::path run = dir() / "run";
    fs::remove_all(run);
    fs::copy(dir() / "stopped", run, fs::copy_options::recursive);
    Checkpoint checkpoint = load_checkpoint(run / "checkpoints/step-00000003");
    change(checkpoint);
    CheckpointWriter({.dir = run / "checkpoints", .keep_last = 0}).save(checkpoint);
    std::string said;
    const auto note = [&](const std::string& text) { said += text + "\n"; };
    const int64_t step = export_run({.run = run, .average = {}, .dtype = at::kFloat, .on_note = note}, dir() / "model");
    EXPECT_EQ(step, said.empty() ? 3 : 2);
    fs::remove_all(dir() / "model");
    TrainOptions options = resuming(1);
    options.on_note = note;
    train(recipe(), options);
    return said;
  }
  void refused(const std::string& reason, const std::function<void(Checkpoint&)>& change) const {
    const std::string said = resumed(change);
    EXPECT_THAT(said, HasSubstr("step-00000003/manifest.json] ")) << reason;
    EXPECT_THAT(said, HasSubstr(reason));
    EXPECT_THAT(said, HasSubstr("going on after step 2")) << reason;
  }

 private:
  test::TemporaryDirectory dir_;
};

TEST_F(Trainer, OperationsThatDifferFromRunToRunAreRefusedUnlessTheRecipeAllowsThem) {
  for (const bool deterministic : {true, false}) {
    Recipe asked = recipe(deterministic ? "run" : "free");
    asked.deterministic = deterministic;
    TrainOptions options = stopping(1);
    options.on_step = [&](const StepReport&) {
      at::Tensor into = at::zeros({2});
      const auto put = [&] { into.put_(at::zeros({2}, at::kLong), at::arange(2.0)); };  // which of the two stays?
      if (deterministic) {
        EXPECT_THROW(put(), c10::Error);
      } else {
        EXPECT_NO_THROW(put());
      }
    };
    train(asked, options);
  }
}

TEST_F(Trainer, ADryRunTellsItsCountsBeforeItMakesAnything) {
  struct Stop {};
  const auto on_counted = [](const DryRun& plan) {
    EXPECT_GT(plan.parameters, 0);
    EXPECT_GT(plan.weight_bytes, 0);
    EXPECT_EQ(plan.stages.at(0).tokens, 0) << "no data yet";
    throw Stop{};
  };
  EXPECT_THROW(dry_run(recipe(), on_counted), Stop);
}

TEST_F(Trainer, StopsWhilePreparingAndGoesOn) {
  std::atomic<bool> interrupt = true;
  TrainOptions options;
  options.interrupt = &interrupt;
  EXPECT_EQ(train(recipe(), options), Outcome::kInterrupted);
  EXPECT_FALSE(fs::exists(dir() / "run/tokenizer/trained_from.json"));
  EXPECT_FALSE(fs::exists(dir() / "run/metrics.jsonl"));
  EXPECT_EQ(train(recipe(), resuming()), Outcome::kFinished);
  EXPECT_EQ(train(recipe("whole"), {}), Outcome::kFinished);
  EXPECT_EQ(metrics(), metrics("whole"));
}

TEST_F(Trainer, NeedsNoSourceOnceItHasBegun) {
  EXPECT_EQ(train(recipe("whole"), {}), Outcome::kFinished);
  EXPECT_EQ(train(recipe(), stopping(2)), Outcome::kInterrupted);
  io::write_file(dir() / "notes.txt", "Other words.");
  EXPECT_EQ(train(recipe(), resuming(1)), Outcome::kInterrupted);
  fs::remove(dir() / "notes.txt");
  EXPECT_EQ(train(recipe(), resuming()), Outcome::kFinished);
  EXPECT_EQ(metrics(), metrics("whole"));
}

std::string train_error(const Recipe& recipe, const TrainOptions& options) {
  try {
    train(recipe, options);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST_F(Trainer, DamagedDataOfARunAreNamedWithWhatHelps) {
  EXPECT_EQ(train(recipe("whole"), {}), Outcome::kFinished);
  EXPECT_EQ(train(recipe(), stopping(2)), Outcome::kInterrupted);
  for (const char* file :
       {"data/sums/shard-00000.safetensors", "data/notes/dataset.json", "tokenizer/tokenizer.json"}) {
    const fs::path path = dir() / "run" / file;
    std::string bytes = io::read_file(path, 1 << 24);
    bytes[bytes.size() / 2] ^= 1;
    io::write_file(path, bytes.substr(0, bytes.size() - 1));
    EXPECT_THAT(train_error(recipe(), resuming()),
                testing::AllOf(HasSubstr("[" + path.parent_path().string() + "]"), HasSubstr("remove this directory")))
        << file;
    fs::remove_all(path.parent_path());
  }
  EXPECT_EQ(train(recipe(), resuming()), Outcome::kFinished);
  EXPECT_EQ(metrics(), metrics("whole"));
  io::write_file(dir() / "run/recipe.json", "{");
  EXPECT_THAT(train_error(recipe(), resuming()), HasSubstr("start another run with out=DIR"));
}

TEST_F(Trainer, ListsAllDocumentsOfABatchThatIsNotFinite) {
  Recipe wild = recipe();
  wild.stages[0].batch.tokens = 1024;
  wild.stages[0].optimizer.learning_rate = 1e18;
  wild.stages[0].optimizer.weight_decay = 0;
  const fs::path list = dir() / "run/not-finite-00000002.txt";
  const std::string said = train_error(wild, {});
  EXPECT_THAT(said, HasSubstr("step 2: "));
  const std::string names = io::read_file(list, 1 << 20);
  const auto count = std::ranges::count(names, '\n');
  EXPECT_GT(count, 13);
  EXPECT_THAT(said, HasSubstr(fmt::format("; all {} are listed in {}", count, list.string())));
  EXPECT_THAT(names, HasSubstr("sums/"));
}

// "reset" is of the stage's start: whoever goes on in its middle keeps the moments and the place in the schedule.
TEST_F(Trainer, ResumeRestoresSchedulerAndOptimizerTogether) {
  const auto two_stages = [&](const char* out) {
    Recipe two = recipe(out);
    two.stages.push_back(two.stages[0]);
    two.stages[1].name = "again";
    two.stages[1].optimizer.reset = true;
    two.stages[1].schedule.warmup_steps = 2;
    return two;
  };
  EXPECT_EQ(train(two_stages("whole"), {}), Outcome::kFinished);
  for (const int64_t steps : {1, 4, 6}) {
    fs::remove_all(dir() / "run");
    EXPECT_EQ(train(two_stages("run"), stopping(steps)), Outcome::kInterrupted);
    EXPECT_EQ(train(two_stages("run"), resuming()), Outcome::kFinished);
    EXPECT_EQ(metrics(), metrics("whole")) << steps;
    const auto last = [&](const char* out) {
      return load_checkpoint(dir() / out / "checkpoints/step-00000008").tensors;
    };
    for (const auto& [name, tensor] : last("whole")) EXPECT_TRUE(at::equal(tensor, last("run").at(name))) << name;
  }
}

TEST_F(Trainer, GoesOnBetweenStagesOfDifferentModels) {
  const auto two_stages = [&](const char* out) {
    Recipe two = recipe(out);
    two.checkpoint.every = 3;
    two.stages.push_back(two.stages[0]);
    two.stages[1].name = "longer";
    two.stages[1].model = {{"attention_chunk_size", 16}};
    return two;
  };
  EXPECT_EQ(train(two_stages("whole"), {}), Outcome::kFinished);
  EXPECT_EQ(train(two_stages("run"), stopping(4)), Outcome::kInterrupted);
  EXPECT_EQ(train(two_stages("run"), resuming()), Outcome::kFinished);
  EXPECT_EQ(metrics(), metrics("whole"));
}

TEST_F(Trainer, IsTheSameRunWhereverItsFilesAreNamedFrom) {
  const fs::path files = fs::relative(dir() / "notes.txt");
  Recipe relative = recipe();
  relative.sources[1].files = {files.string()};
  ASSERT_EQ(train(relative, stopping(1)), Outcome::kInterrupted);
  EXPECT_EQ(train(recipe(), resuming()), Outcome::kFinished);
}

TEST_F(Trainer, RefusesADirectoryThatAnotherHoldsOrThatHasAModel) {
  const auto refused = [&](const char* reason) {
    try {
      train(recipe(), {});
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(reason));
    }
  };
  {
    const auto lock = io::lock_directory(dir() / "run");
    refused("run] another process trains here");
  }
  fs::create_directories(dir() / "run/model");
  refused("run] holds a model that is not of this run");
  EXPECT_FALSE(fs::exists(dir() / "run/recipe.json"));
}

TEST_F(Trainer, ValidatesInBatchesOfTheTrainingsSize) {
  Recipe small = recipe("run");
  small.model.vocab_size = 278;  // of the notes alone
  small.sources[0].validation = true;
  small.validation.every = 4;
  small.validation.tokens = 200;
  ASSERT_EQ(train(small, {}), Outcome::kFinished);
  Recipe large = small;
  large.out = (dir() / "large").string();
  large.validation.tokens = 1'000'000;  // more than there are
  ASSERT_EQ(train(large, {}), Outcome::kFinished);
  const auto validation = [&](const char* out) {
    const std::string lines = metrics(out);
    return Json::parse(lines.substr(lines.rfind('\n', lines.size() - 2) + 1)).at("eval").at("source_loss").at("sums");
  };
  EXPECT_GT(validation("run").get<double>(), 0);
  EXPECT_NE(validation("run"), validation("large"));
}

TEST_F(Trainer, PassesOverCheckpointsThatItCannotGoOnFrom) {
  ASSERT_EQ(train(recipe("stopped"), stopping(3)), Outcome::kInterrupted);
  EXPECT_THAT(resumed([](Checkpoint&) {}), HasSubstr("going on after step 3"));
  const auto set = [](const char* pointer, const Json& value) {
    return [=](Checkpoint& checkpoint) { checkpoint.state[Json::json_pointer(pointer)] = value; };
  };
  const Json state = load_checkpoint(dir() / "stopped/checkpoints/step-00000003").state;
  for (const auto& [key, value] : state.items()) refused("'" + key + "'", set(("/" + key).c_str(), true));
  refused("the state is no JSON object", [](Checkpoint& checkpoint) { checkpoint.state = 3; });
  refused("lacks 'stage'", [](Checkpoint& checkpoint) { checkpoint.state.erase("stage"); });
  refused("is of stage 10, the recipe has 1", set("/stage", 9));
  refused("contradict each other", set("/stage_step", 2));
  refused("beyond 2^62", set("/next_sample", int64_t{1} << 62 | 1));
  refused("no finite number", set("/losses", {1, "2"}));
  refused("128 at most", set("/norms", std::vector<double>(129)));
  refused("lacks 'steps'", set("/dead_experts", Json::array({Json{{"layer", 1}}})));
  refused("no whole number", set("/adam_steps/lm_head.weight", -1));
  refused("no weight of the model", set("/adam_steps/none", 1));
  refused("'sums' of 'data' is no string", set("/data/sums", 1));
  refused("a source 'other'", set("/data/other", ""));
  refused("knows no source 'sums'", [](Checkpoint& checkpoint) { checkpoint.state["data"].erase("sums"); });
}

TEST_F(Trainer, PassesOverCheckpointsWithTensorsOfAnotherModel) {
  ASSERT_EQ(train(recipe("stopped"), stopping(3)), Outcome::kInterrupted);
  for (const std::string name : {"weights/lm_head.weight", "adam_m/lm_head.weight", "adam_v/lm_head.weight"}) {
    refused("lacks the tensor '" + name, [&](Checkpoint& checkpoint) { checkpoint.tensors.erase(name); });
    refused("'" + name + "' is Float [3], the model has Float [290, 32]",
            [&](Checkpoint& checkpoint) { checkpoint.tensors[name] = at::zeros({3}); });
    refused("'" + name + "' is Half",
            [&](Checkpoint& checkpoint) { checkpoint.tensors[name] = checkpoint.tensors[name].to(at::kHalf); });
  }
  refused("'bias/1' is Float [3]", [](Checkpoint& checkpoint) { checkpoint.tensors["bias/1"] = at::zeros({3}); });
  for (const std::string name : {"bias/0", "bias/x", "weights/none", "none"})
    refused("'" + name + "', which is none",
            [&](Checkpoint& checkpoint) { checkpoint.tensors[name] = at::zeros({2}); });
}

TEST_F(Trainer, PassesOverCheckpointsOfOtherSettings) {
  ASSERT_EQ(train(recipe("stopped"), stopping(3)), Outcome::kInterrupted);
  EXPECT_THAT(load_checkpoint(dir() / "stopped/checkpoints/step-00000003").state["recipe"].get<std::string>(),
              testing::SizeIs(32));
  const fs::path run = dir() / "run";
  fs::copy(dir() / "stopped", run, fs::copy_options::recursive);
  Checkpoint checkpoint = load_checkpoint(run / "checkpoints/step-00000003");
  checkpoint.state["recipe"] = "0";
  CheckpointWriter({.dir = run / "checkpoints", .keep_last = 0}).save(checkpoint);
  std::string said;
  TrainOptions options = resuming(1);
  options.on_note = [&](const std::string& text) { said += text + "\n"; };
  train(recipe(), options);
  EXPECT_THAT(said, HasSubstr("is of a recipe with other settings"));
  EXPECT_THAT(said, HasSubstr("going on after step 2"));
}

TEST_F(Trainer, GoesOnFromWhereTheMetricsStillReach) {
  ASSERT_EQ(train(recipe("whole"), {}), Outcome::kFinished);
  ASSERT_EQ(train(recipe(), stopping(3)), Outcome::kInterrupted);
  const std::string all = metrics();
  const fs::path file = dir() / "run/metrics.jsonl";
  fs::resize_file(file, all.size() - 5);
  std::string said;
  TrainOptions options = resuming();
  options.on_note = [&](const std::string& text) { said += text + "\n"; };
  EXPECT_EQ(train(recipe(), options), Outcome::kFinished);
  EXPECT_THAT(said, HasSubstr("step-00000003/manifest.json] was made after"));
  EXPECT_THAT(said, HasSubstr("going on after step 2"));
  EXPECT_EQ(metrics(), metrics("whole"));
}

TEST_F(Trainer, RefusesATokenizerThatIsNotTheModels) {
  ASSERT_EQ(train(recipe(), {}), Outcome::kFinished);
  const auto tuned = [&](const char* out) {
    Recipe tuned = recipe(out);
    tuned.model.config = nullptr;
    tuned.model.vocab_size = 0;
    tuned.model.from = (dir() / "run/model").string();
    return tuned;
  };
  const auto error_of = [&](const Recipe& recipe) -> std::string {
    try {
      train(recipe, stopping(1));
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(error_of(tuned("own")), "accepted");
  Recipe other = recipe("other");
  other.model.vocab_size = 280;
  ASSERT_EQ(train(other, stopping(1)), Outcome::kInterrupted);
  Recipe foreign = tuned("foreign");
  foreign.model.tokenizer = (dir() / "other/tokenizer").string();
  EXPECT_THAT(error_of(foreign), HasSubstr("the tokenizer has 280 entries, the model's vocabulary 290"));
  // Beside a model that calls another token the first one of a text, or the last one.
  const fs::path config = dir() / "run/model/config.json";
  const Json good = read_json_file(config);
  for (const auto& [key, message] :
       {std::pair{"bos_token_id", "<|begin_of_text|> is "}, {"eos_token_id", "ends texts"}}) {
    Json bad = good;
    bad[key] = 5;
    io::write_file(config, bad.dump());
    EXPECT_THAT(error_of(tuned("bad")), HasSubstr(message));
  }
}

TEST_F(Trainer, NeverSavesWeightsThatAreNotFinite) {
  Recipe poisoned = recipe();
  poisoned.checkpoint.keep_last = 1;
  poisoned.stages.push_back(poisoned.stages[0]);
  poisoned.stages[0].steps = 2;
  poisoned.stages[1].name = std::string("poisoned");
  poisoned.stages[1].optimizer.weight_decay = 1e300;  // a recipe that is read cannot say this
  try {
    train(poisoned, {});
    ADD_FAILURE() << "accepted";
  } catch (const NotFinite& error) {
    EXPECT_THAT(error.what(), HasSubstr("step 3: 'weights/"));
  }
  EXPECT_THAT(checkpoint_steps(dir() / "run/checkpoints"), testing::ElementsAre(2));
  EXPECT_EQ(export_run({.run = dir() / "run", .average = {}, .dtype = at::kFloat, .on_note = {}}, dir() / "model"), 2);
}

TEST_F(Trainer, ExportsTheMeanOfRuns) {
  Recipe other = recipe("other");
  other.seed = 77;
  ASSERT_EQ(train(recipe(), stopping(2)), Outcome::kInterrupted);
  ASSERT_EQ(train(other, stopping(3)), Outcome::kInterrupted);
  ExportOptions options{.run = dir() / "run", .average = {dir() / "other"}, .dtype = at::kFloat, .on_note = {}};
  EXPECT_EQ(export_run(options, dir() / "mean"), 2);
  const auto mean = checkpoint::open_model(dir() / "mean");
  const Checkpoint a = load_checkpoint(dir() / "run/checkpoints/step-00000002");
  const Checkpoint b = load_checkpoint(dir() / "other/checkpoints/step-00000003");
  for (const auto& [name, weight] : a.tensors) {
    if (!name.starts_with("weights/")) continue;
    const at::Tensor half = ((weight.to(at::kDouble) + b.tensors.at(name).to(at::kDouble)) / 2).to(at::kFloat);
    ASSERT_FALSE(weight.equal(half)) << name;
    for (const arch::ParamRow& row : mean->rows()) {
      const bool same = "weights/" + row.name != name || mean->load(row, at::kFloat).equal(half);
      EXPECT_TRUE(same) << name;
    }
  }
  Recipe larger = recipe("larger");
  larger.model.config["num_hidden_layers"] = 4;
  ASSERT_EQ(train(larger, stopping(1)), Outcome::kInterrupted);
  options.average = {dir() / "larger"};
  try {
    export_run(options, dir() / "none");
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("larger] is of a model of another shape"));
  }
  Recipe chunked = recipe("chunked");
  chunked.model.config["attention_chunk_size"] = 16;
  ASSERT_EQ(train(chunked, stopping(1)), Outcome::kInterrupted);
  options.average = {dir() / "chunked"};
  try {
    export_run(options, dir() / "none");
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("chunked] has another config"));
  }
}

TEST_F(Trainer, PassesOverWeightsThatAreNotFinite) {
  ASSERT_EQ(train(recipe("stopped"), stopping(3)), Outcome::kInterrupted);
  refused("the tensor 'weights/lm_head.weight' has values that are not finite",
          [](Checkpoint& c) { c.tensors.at("weights/lm_head.weight").fill_(std::nan("")); });
}

}  // namespace
}  // namespace puna::train
