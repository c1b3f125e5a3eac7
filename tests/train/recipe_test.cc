// Recipes: defaults, overrides, stages, and one clear line for everything that is wrong.
#include "train/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "tests/support/golden.h"
#include "tests/train/support.h"
#include "train/prepare.h"

namespace puna::train {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

const std::string kSmall = R"(
[model]
tokenizer = "tok"
config = {hidden_size = 32}
[[source]]
name = "text"
files = ["a.txt"]
)";

Recipe parse(const std::string& toml, const std::vector<std::string>& overrides = {}) {
  return parse_recipe(toml, "r.toml", "/base", overrides);
}

std::string error_of(const std::string& toml, const std::vector<std::string>& overrides = {}) {
  try {
    parse(toml, overrides);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Recipe, DefaultsAndPathsRelativeToTheRecipe) {
  const Recipe recipe = parse("steps = 7\n" + kSmall);
  EXPECT_EQ(recipe.precision, "float32");
  EXPECT_TRUE(recipe.deterministic);
  EXPECT_FALSE(recipe.recompute);
  EXPECT_EQ(recipe.checkpoint.every, 500);
  ASSERT_EQ(recipe.stages.size(), 1);
  EXPECT_EQ(recipe.stages[0].name, "train");
  EXPECT_EQ(recipe.total_steps(), 7);
  EXPECT_EQ(recipe.stages[0].optimizer.beta2, 0.95);
  EXPECT_EQ(recipe.stages[0].schedule.kind, "cosine");
  EXPECT_EQ(recipe.model.tokenizer, "/base/tok");
  EXPECT_THAT(recipe.sources[0].files, ElementsAre("/base/a.txt"));
}

TEST(Recipe, StagesTakeWhatTheyDoNotSetFromTheTop) {
  const Recipe recipe = parse(kSmall + R"(
[optimizer]
learning_rate = 0.5
beta1 = 0.8
[batch]
tokens = 4096
[[stage]]
name = "one"
steps = 3
[[stage]]
steps = 4
batch = {sequence_length = 1024}
optimizer = {learning_rate = 0.25}
weights = {text = 2}
)");
  ASSERT_EQ(recipe.stages.size(), 2);
  EXPECT_EQ(recipe.stages[0].optimizer.learning_rate, 0.5);
  EXPECT_EQ(recipe.stages[1].name, "1");
  EXPECT_EQ(recipe.stages[1].optimizer.learning_rate, 0.25);
  EXPECT_EQ(recipe.stages[1].optimizer.beta1, 0.8);
  EXPECT_EQ(recipe.stages[1].batch.sequence_length, 1024);
  EXPECT_EQ(recipe.stages[1].batch.tokens, 4096);
  EXPECT_EQ(recipe.total_steps(), 7);
}

TEST(Recipe, OverridesReachTablesSourcesAndStages) {
  const std::string toml = kSmall + "[[stage]]\nname = \"one\"\nsteps = 3\n[[stage]]\nname = \"two\"\nsteps = 3\n";
  const Recipe recipe = parse(
      toml, {"seed=9", "out=runs/x", "optimizer.learning_rate=3e-4", "source.text.weight=0.5", "stage.two.steps=11",
             "stage.two.schedule.kind=wsd", "stage.one.freeze=[\"router\"]", "model.config.head_dim=8"});
  EXPECT_EQ(recipe.seed, 9);
  EXPECT_EQ(recipe.out, "runs/x");
  EXPECT_EQ(recipe.stages[0].optimizer.learning_rate, 3e-4);
  EXPECT_EQ(recipe.sources[0].weight, 0.5);
  EXPECT_EQ(recipe.stages[0].steps, 3);
  EXPECT_EQ(recipe.stages[1].steps, 11);
  EXPECT_EQ(recipe.stages[1].schedule.kind, "wsd");
  EXPECT_THAT(recipe.stages[0].freeze, ElementsAre("router"));
  EXPECT_EQ(recipe.model.config["head_dim"], 8);
}

TEST(Recipe, StagesWithoutANameAreCalledByTheirNumber) {
  const std::string toml =
      kSmall + "[[stage]]\nsteps = 3\n[[stage]]\nname = \"two\"\nsteps = 3\n[[stage]]\nsteps = 3\n";
  const Recipe recipe = parse(toml, {"stage.0.steps=7", "stage.2.batch.tokens=999"});
  EXPECT_EQ(recipe.stages[0].steps, 7);
  EXPECT_EQ(recipe.stages[0].name, "0");
  EXPECT_EQ(recipe.stages[2].batch.tokens, 999);
  EXPECT_THAT(error_of(toml, {"stage.1.steps=7"}), HasSubstr("no stage is called '1'; they are called 0, two, 2"));
}

TEST(Recipe, SettingsWithoutEffectAreRefused) {
  const std::string top = "steps = 10\n" + kSmall;
  for (const auto& [changes, wanted] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"source.text.documents=5"}, "'source.text.documents' has no effect on files"},
           {{"source.text.seed=5"}, "'source.text.seed' has no effect on files"},
           {{"source.text.length=5"}, "'source.text.length' has no effect on files"},
           {{"source.text.file=b.txt"}, "'source.text.file' has no effect on files"},
           {{"source.text.files=[]", "source.text.dataset=d", "source.text.seed=5"}, "has no effect on a dataset"},
           {{"schedule.final_fraction=0.1", "schedule.kind=constant"}, "'schedule.final_fraction' has no effect"},
           {{"schedule.decay_steps=3"}, "'schedule.decay_steps' has no effect on any stage; leave it out"},
           {{"checkpoint.keep_every=5", "checkpoint.keep_last=0"}, "'checkpoint.keep_every' has no effect"},
           {{"model.single_digits=true"}, "'model.single_digits' has no effect without 'vocab_size'"}})
    EXPECT_THAT(error_of(top, changes), HasSubstr(wanted));
  const std::string stages = kSmall + "[[stage]]\nname = \"one\"\nsteps = 9\n[[stage]]\nname = \"two\"\nsteps = 9\n";
  const auto accepted = [&](const std::vector<std::string>& changes) {
    EXPECT_EQ(error_of(stages, changes), "accepted") << changes.back();
  };
  accepted({"schedule.decay_steps=3", "stage.two.schedule={kind='wsd'}"});
  accepted({"schedule.final_fraction=0.5", "stage.two.schedule={kind='constant'}"});
  accepted({"checkpoint.keep_every=5"});
  EXPECT_THAT(
      error_of(stages, {"stage.two.schedule={decay_steps=3}"}),
      HasSubstr("'stage.two.schedule.decay_steps' has no effect with kind 'cosine'; leave it out, or set kind to wsd"));
  EXPECT_THAT(error_of(stages, {"stage.two.schedule={kind='constant', final_fraction=0.1}"}),
              HasSubstr("'stage.two.schedule.final_fraction' has no effect with kind 'constant'"));
  EXPECT_THAT(error_of(stages, {"schedule.decay_steps=3", "stage.two.schedule={kind='wsd', decay_steps=4}"}),
              HasSubstr("'schedule.decay_steps' has no effect on any stage"));
}

TEST(Recipe, GenerationSettingsHaveTheirTypes) {
  const std::string top = "steps = 10\n" + kSmall;
  EXPECT_EQ(error_of(top, {"model.generation={do_sample=false, temperature=0.5, top_p=0.9, top_k=40}"}), "accepted");
  EXPECT_THAT(error_of(top, {"model.generation={do_sample=0}"}),
              HasSubstr("'model.generation.do_sample' is 0; it must be true"));
  EXPECT_THAT(error_of(top, {"model.generation={top_k=1.5}"}),
              HasSubstr("'model.generation.top_k' is 1.5; it must be a whole"));
  EXPECT_THAT(error_of(top, {"model.generation={top_p='a'}"}),
              HasSubstr("'model.generation.top_p' is \"a\"; it must be a num"));
}

// What is in the repository is a recipe that this program takes.
TEST(Recipe, TheRepositorysRecipesAreAccepted) {
  int found = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(PUNA_SOURCE_DIR "/recipes")) {
    if (entry.path().extension() != ".toml") continue;
    EXPECT_NO_THROW(read_recipe(entry.path())) << entry.path();
    ++found;
  }
  EXPECT_GE(found, 6);
}

TEST(Recipe, BadOverridesAreNamed) {
  const std::string toml = kSmall + "[[stage]]\nname = \"one\"\nsteps = 3\n";
  EXPECT_THAT(error_of(toml, {"seed"}), HasSubstr("no key=value"));
  EXPECT_THAT(error_of(toml, {"=3"}), HasSubstr("no key=value"));
  EXPECT_THAT(error_of(toml, {"stage.three.steps=1"}), HasSubstr("no stage is called 'three'"));
  EXPECT_THAT(error_of(toml, {"stage.steps=1"}), HasSubstr("stage.NAME.steps"));
  EXPECT_THAT(error_of(toml, {"seed.x=1"}), HasSubstr("whole number"));
  EXPECT_THAT(error_of(toml, {"optimizer.lerning_rate=1"}), HasSubstr("did you mean 'learning_rate'?"));
  EXPECT_THAT(error_of(toml, {"optimizer.learning_rate=fast"}), HasSubstr("must be a number"));
  EXPECT_THAT(error_of(toml, {"foo=1"}), testing::Not(HasSubstr("did you mean")));
  EXPECT_THROW(parse(toml, {"seed"}), UsageError);
}

TEST(Recipe, UnknownKeysNameTheNearestAtEveryLevel) {
  const std::string stage = kSmall + "[[stage]]\nname = \"one\"\nsteps = 3\n";
  EXPECT_THAT(error_of("preccision = \"float32\"\nsteps = 1\n" + kSmall), HasSubstr("did you mean 'precision'?"));
  EXPECT_THAT(error_of("steps = 1\n" + kSmall + "weigt = 2\n"),
              AllOf(HasSubstr("source.text.weigt"), HasSubstr("'weight'?")));
  EXPECT_THAT(error_of("steps = 1\nmodel.vocab_sise = 3\n"), HasSubstr("'vocab_size'?"));
  for (const auto& [table, key, nearest] :
       std::vector<std::tuple<std::string, std::string, std::string>>{{"batch", "sequence_lenght", "sequence_length"},
                                                                      {"optimizer", "weight_decai", "weight_decay"},
                                                                      {"schedule", "warmup_step", "warmup_steps"},
                                                                      {"balance", "bias_rat", "bias_rate"},
                                                                      {"checkpoint", "keep_lst", "keep_last"},
                                                                      {"log", "detail_every", "details_every"}}) {
    EXPECT_THAT(error_of("steps = 1\n" + kSmall + "[" + table + "]\n" + key + " = 1\n"),
                AllOf(HasSubstr(table + "." + key), HasSubstr("did you mean '" + nearest + "'?")));
    if (table == "checkpoint" || table == "log") continue;
    EXPECT_THAT(error_of(stage + "[stage." + table + "]\n" + key + " = 1\n"),
                AllOf(HasSubstr("stage.one." + table + "." + key), HasSubstr("did you mean '" + nearest + "'?")));
  }
  EXPECT_THAT(error_of(stage + "step = 3\n"), HasSubstr("did you mean 'steps'?"));
  EXPECT_THAT(error_of(stage + "weights = {texd = 1}\n"), HasSubstr("did you mean 'text'?"));
  EXPECT_THAT(error_of(stage + "freeze = [\"visoin\"]\n"), HasSubstr("did you mean 'vision'?"));
}

TEST(Recipe, ImpossibleValuesAreRefused) {
  const std::string top = "steps = 10\n" + kSmall;
  for (const auto& [change, wanted] : std::vector<std::pair<std::string, std::string>>{
           {"steps=0", "at least 1"},
           {"steps=-3", "at least 1"},
           {"precision=fp32", "did you mean 'float32'?"},
           {"precision=bf16", "did you mean 'bfloat16'?"},
           {"precision=bfloat1", "did you mean 'bfloat16'?"},
           {"batch.sequence_length=1", "at least 2"},
           {"batch.tokens=100", "at least the sequence length"},
           {"batch.tokens=9223372036854775807", "below 2^31"},
           {"steps=9223372036854775807", "at most 2^40"},
           {"optimizer.learning_rate=nan", "[optimizer.learning_rate=nan] a number must be finite"},
           {"source.text.weight=0", "[r.toml] stage 'train' would be trained on nothing: 'source.text.weight' is 0"},
           {"batch.micro_tokens=100", "or 0"},
           {"optimizer.learning_rate=0", "above 0"},
           {"optimizer.beta1=1", "below 1"},
           {"optimizer.beta2=-0.5", "below 1"},
           {"optimizer.epsilon=0", "above 0"},
           {"optimizer.weight_decay=-1", "from 0 to below"},
           {"optimizer.weight_decay=1e300", "from 0 to below 1000"},
           {"optimizer.clip_norm=-1", "0 or more"},
           {"schedule.kind=cosin", "did you mean 'cosine'"},
           {"schedule.warmup_steps=11", "the stage's steps"},
           {"schedule.decay_steps=11", "after the warmup"},
           {"schedule.final_fraction=1.5", "from 0 to 1"},
           {"balance.bias_rate=1", "below 1"},
           {"balance.dead_steps=0", "at least 1"},
           {"checkpoint.every=-1", "0 or more"},
           {"checkpoint.keep_last=5000000000", "smaller number"},
           {"log.details_every=0", "at least 1"},
           {"log.outlier_z=0", "above 0"},
           {"threads=-1", "from 0"},
           {"seed=-1", "whole number"},
           {"seed=1.5", "whole number"},
           {"recompute=1", "true or false"},
           {"source.text.weight=-1", "0 or more"},
           {"source.text.generate=arithmetic", "exactly one of"},
           {"source.text.files=[]", "exactly one of"},
           {"source.text.files=a.txt", "list of strings"},
           {"batch=5", "must be a table"},
           {"optimizer=[1]", "must be a table"},
           {"stage=5", "[[stage]]"},
           {"model=5", "must be a table"},
           {"source.text.name=5", "must be a string"},
       }) {
    EXPECT_THAT(error_of(top, {change}), HasSubstr(wanted)) << change;
  }
  const std::string stage = kSmall + "[[stage]]\nname = \"one\"\nsteps = 3\n";
  EXPECT_THAT(error_of(stage + "batch = 5\n"), HasSubstr("'stage.one.batch' must be a table"));
  EXPECT_THAT(error_of("batch = 5\n" + stage + "batch = {tokens = 5}\n"), HasSubstr("must be a table"));
  EXPECT_THAT(error_of(stage + "weights = {text = 0}\n"), HasSubstr("all 0"));
  EXPECT_THAT(error_of(stage + "[[stage]]\nname = \"one\"\nsteps = 3\n"), HasSubstr("two stages are called 'one'"));
  EXPECT_THAT(error_of("steps = 3\n" + stage), HasSubstr("'steps' belongs into each [[stage]]"));
  EXPECT_THAT(error_of("steps = 3\n" + kSmall + "[[source]]\nname = \"text\"\nfiles = [\"b\"]\n"),
              HasSubstr("two sources are called 'text'"));
  EXPECT_THAT(error_of("steps = 3\n[model]\ntokenizer = \"t\"\nconfig = {}\n"), HasSubstr("no [[source]]"));
  EXPECT_THAT(error_of("steps = 3\n[[source]]\nname = 5\nfiles = [\"a\"]\n"), HasSubstr("must be a string"));
  EXPECT_THAT(error_of("source = 3\nsteps = 3\n"), HasSubstr("[[source]]"));
}

TEST(Recipe, AModelIsEitherFromACheckpointOrFromAConfig) {
  EXPECT_THAT(error_of("steps = 1\n" + kSmall, {"model.from=x"}), HasSubstr("both 'from' and 'config'"));
  EXPECT_THAT(error_of("steps = 1\n[model]\ntokenizer = \"t\"\n[[source]]\nname = \"a\"\nfiles = [\"a\"]\n"),
              HasSubstr("neither 'from'"));
}

TEST(Recipe, TomlErrorsSayTheLine) {
  EXPECT_THAT(error_of("steps = 1\n\nseed = = 2\n"), AllOf(HasSubstr("[r.toml]"), HasSubstr("line 3")));
  EXPECT_THAT(error_of("steps = 1\nseed = nan\n"), HasSubstr("line 2"));
  EXPECT_THAT(error_of("a = 1\nb = 2024-01-02\n"), HasSubstr("line 2"));
  EXPECT_THAT(error_of("steps = 1\nsteps = 2\n"), HasSubstr("line 2"));
  EXPECT_THAT(error_of("x = " + std::string(60, '[') + std::string(60, ']')), HasSubstr("nested deeper"));
}

// What a resumed run compares: everything that decides the bits, nothing that does not.
TEST(Recipe, TheHashedFormLeavesOutPlacesAndThreads) {
  const std::string top = "steps = 10\n" + kSmall;
  const Json base = recipe_to_json(parse(top));
  for (const char* change : {"out=elsewhere", "threads=2", "checkpoint.every=3", "checkpoint.keep_last=9"})
    EXPECT_EQ(recipe_to_json(parse(top, {change})), base) << change;
  for (const char* change : {"seed=1", "precision=float64", "recompute=true", "steps=11", "optimizer.beta1=0.5",
                             "schedule.kind=linear", "batch.tokens=4096", "balance.bias_rate=0.1",
                             "source.text.weight=2", "model.config.head_dim=4", "log.details_every=3"})
    EXPECT_NE(recipe_to_json(parse(top, {change})), base) << change;
  EXPECT_EQ(Json::parse(base.dump()), base) << "as read back from a file";
}

TEST(Recipe, EveryKeyIsDescribed) {
  const std::string text = describe_recipe_keys();
  EXPECT_LT(text.find("\n  steps = 0 "), text.find("[model]"));
  EXPECT_GT(text.find("ntk_factor"), text.find("[stage.model]"));
  for (const char* key :
       {"attention_chunk_size", "rope_scaling", "precision", "vocab_size", "micro_tokens", "weight_decay",
        "warmup_steps", "bias_rate", "keep_every", "details_every", "max_epochs", "freeze"})
    EXPECT_THAT(text, HasSubstr(key));
}

std::string stage_error(const Json& model) {
  StageConfig stage;
  stage.name = "s";
  stage.model = model;
  std::ostringstream said;  // what() as std::string makes GCC 12 warn of a length that cannot be
  try {
    stage_config(test::train_config(), stage, "r.toml");
  } catch (const Error& error) {
    said << error.what();
  }
  return said.str();
}

TEST(StageConfig, ChangesRopeAndContextButNoShape) {
  StageConfig stage;
  stage.name = "s";
  stage.model = {{"ntk_factor", 4}, {"max_position_embeddings", 77}, {"attention_chunk_size", 9}};
  const arch::Llama4Config base = test::train_config(), config = stage_config(base, stage, "r.toml");
  EXPECT_EQ(config.text.max_position_embeddings, 77);
  EXPECT_EQ(config.text.attention_chunk_size, 9);
  EXPECT_NEAR(config.text.rope_theta, base.text.rope_theta * std::pow(4.0, 8.0 / 6.0), 1e-6 * config.text.rope_theta);
  stage.model = {{"rope_theta", 123.0}};
  EXPECT_EQ(stage_config(base, stage, "r.toml").text.rope_theta, 123.0);
  stage.model = {{"rope_theta", 123.0}, {"ntk_factor", 4}};
  EXPECT_NEAR(stage_config(base, stage, "r.toml").text.rope_theta, 123.0 * std::pow(4.0, 8.0 / 6.0), 1e-3);
  stage.model = {{"rope_scaling",
                  {{"rope_type", "llama3"},
                   {"factor", 4.0},
                   {"low_freq_factor", 1.0},
                   {"high_freq_factor", 1.0},
                   {"original_max_position_embeddings", 64}}}};
  const auto scaled = stage_config(base, stage, "r.toml").text.rope_scaling;
  ASSERT_TRUE(scaled.has_value());
  EXPECT_EQ(scaled->factor, 4);
  EXPECT_EQ(scaled->original_max_position_embeddings, 64);
  stage.model = nullptr;
  EXPECT_EQ(stage_config(base, stage, "r.toml"), base);
}

TEST(StageConfig, ShapesAndUnknownKeysAreRefused) {
  EXPECT_THAT(stage_error({{"hidden_size", 64}}), HasSubstr("shape"));
  EXPECT_THAT(stage_error({{"num_local_experts", 8}}), HasSubstr("shape"));
  EXPECT_THAT(stage_error({{"vocab_size", 300}}), HasSubstr("shape"));
  EXPECT_THAT(stage_error({{"rope_thetta", 1.0}}), HasSubstr("did you mean 'rope_theta'?"));
  EXPECT_THAT(stage_error({{"ntk_factor", 0.5}}), HasSubstr("1 or more"));
  EXPECT_THAT(stage_error({{"ntk_factor", "four"}}), HasSubstr("1 or more"));
  EXPECT_THAT(stage_error({{"ntk_factor", 4}, {"rope_theta", "x"}}), HasSubstr("must be a number"));
}

}  // namespace
}  // namespace puna::train
