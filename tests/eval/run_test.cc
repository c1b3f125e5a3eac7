// Tasks and needles on the tiny random model; likelihoods against plain forwards of model::Model.
#include "eval/run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "base/error.h"
#include "cli/demo_model.h"
#include "engine/prompt.h"
#include "engine/threads.h"
#include "eval/likelihood.h"
#include "eval/needle.h"
#include "io/file.h"
#include "io/image.h"
#include "tests/support/golden.h"

namespace puna::eval {
namespace {

namespace fs = std::filesystem;
using engine::TokenId;
using testing::HasSubstr;

const engine::LoadedModel& demo() {
  static const test::TemporaryDirectory dir;
  static const engine::LoadedModel loaded = [] {
    cli::write_demo_model(dir.path() / "demo", 0, false);
    engine::set_threads(1);
    engine::LoadOptions options;
    options.model = dir.path() / "demo";
    options.dtype = at::kFloat;
    return engine::load_model(options);
  }();
  return loaded;
}

// Sum of log-probabilities of `continuation` after `prompt` by one forward over all of it, without a cache.
double plain_log_likelihood(const engine::Prompt& prompt, const std::vector<TokenId>& continuation) {
  const c10::InferenceMode guard;
  std::vector<int64_t> ids(prompt.tokens.begin(), prompt.tokens.end());
  ids.insert(ids.end(), continuation.begin(), continuation.end());
  model::Batch batch = model::Batch::single(at::tensor(ids, at::kLong));
  batch.image_features = prompt.features;
  const at::Tensor logprobs_TV = at::log_softmax(demo().model->forward(batch).to(at::kDouble), -1);
  double sum = 0;
  for (size_t i = prompt.tokens.size(); i < ids.size(); ++i)
    sum += logprobs_TV[static_cast<int64_t>(i) - 1][ids[i]].item<double>();
  return sum;
}

class OnDemo : public testing::Test {
 protected:
  Task task(const std::string& text) {
    io::write_file(dir_.path() / "t.jsonl", text);
    return read_task(dir_.path() / "t.jsonl");
  }
  fs::path dir() const { return dir_.path(); }

 private:
  test::TemporaryDirectory dir_;
};

TEST_F(OnDemo, LikelihoodIsThatOfAPlainForwardWhateverTheCacheHolds) {
  const engine::Prompt prompt = engine::raw_prompt(demo(), "The shortest way to the harbour is");
  engine::Sequence shared(demo());
  for (const char* text : {" left.", " l", " straight on, past the old mill and the market.", " left."}) {
    const auto tokens = demo().tokenizer->encode(text);
    engine::Sequence fresh(demo());
    const double warm = log_likelihood(shared, prompt, tokens).value(),
                 cold = log_likelihood(fresh, prompt, tokens).value();
    EXPECT_NEAR(cold, plain_log_likelihood(prompt, tokens), 1e-4 * static_cast<double>(tokens.size())) << text;
    EXPECT_NEAR(warm, cold, 1e-4 * static_cast<double>(tokens.size())) << text;
    EXPECT_LT(cold, -1);
    if (std::string_view(text) == " l") {  // in the same chunk as the choice before
      EXPECT_EQ(shared.reused_tokens(), static_cast<int64_t>(prompt.tokens.size()) - 1);
    }
  }
}

TEST_F(OnDemo, ChoicesAreScoredInChatAndRawFormAndWithImages) {
  io::Image image{20, 20, std::vector<uint8_t>(1200, 90)};
  const auto png = io::encode_png(image);
  io::write_file(dir() / "a.png", std::string_view(reinterpret_cast<const char*>(png.data()), png.size()));
  const Task mixed = task(
      R"({"task": {"kind": "multiple_choice"}}
{"prompt": "Two and two?", "choices": ["four", "a number that is not four"], "answer": 0}
{"prompt": "Two and two are  ", "choices": ["four", "five"], "answer": "four", "format": "raw"}
{"prompt": "What is here?", "images": ["a.png"], "choices": ["grey", "a cat"], "answer": 1})");
  const TaskResult result = run_task(demo(), mixed, {});
  ASSERT_EQ(result.outcomes.size(), 3u);
  const auto message = [](std::vector<text::Part> parts) {
    return text::Message{text::Role::kUser, std::move(parts), {}, false};
  };
  const std::vector<engine::Prompt> prompts = {
      engine::chat_prompt(demo(), {message({text::TextPart{"Two and two?"}})}, {}),
      engine::raw_prompt(demo(), "Two and two are"),
      engine::chat_prompt(demo(), {message({text::ImagePart{0}, text::TextPart{"What is here?"}})},
                          {engine::encode_image(demo(), image)})};
  for (size_t i = 0; i < 3; ++i) {
    const Outcome& outcome = result.outcomes[i];
    std::vector<double> expected;
    for (const std::string& choice : outcome.item->choices)
      expected.push_back(plain_log_likelihood(prompts[i], demo().tokenizer->encode((i == 1 ? "  " : "") + choice)));
    ASSERT_EQ(outcome.log_likelihoods.size(), 2u);
    for (size_t c = 0; c < 2; ++c) EXPECT_NEAR(outcome.log_likelihoods[c], expected[c], 2e-3) << i << " " << c;
    const size_t raw = expected[0] >= expected[1] ? 0 : 1;
    EXPECT_EQ(outcome.right_raw, raw == outcome.item->right_choice);
    const auto per_byte = [&](size_t c) { return expected[c] / static_cast<double>(outcome.item->choices[c].size()); };
    EXPECT_EQ(outcome.right_per_byte, (per_byte(0) >= per_byte(1) ? 0u : 1u) == outcome.item->right_choice);
    EXPECT_EQ(outcome.right, outcome.right_raw);
    EXPECT_EQ(outcome.answer, outcome.item->choices[raw]);
  }
  // Of random logits, a choice of 4 bytes is likelier than one of 25.
  EXPECT_TRUE(result.outcomes[0].right_raw);
  ASSERT_EQ(result.measures.size(), 3u);
  EXPECT_EQ(result.measures[1].name, "accuracy_raw");
}

TEST_F(OnDemo, PerplexityIsThatOfAPlainForward) {
  const Task texts = task(R"({"kind": "perplexity", "text": "It was a quiet day."}
{"kind": "perplexity", "text": "The train was late again, as on most days of that week."})");
  const TaskResult result = run_task(demo(), texts, {});
  double nll = 0, bytes = 0;
  for (const Outcome& outcome : result.outcomes) {
    const std::vector<TokenId> tokens = demo().tokenizer->encode(outcome.item->text);
    engine::Prompt begin;
    begin.tokens = {demo().tokenizer->special("<|begin_of_text|>").value()};
    EXPECT_NEAR(outcome.nll, -plain_log_likelihood(begin, tokens), 1e-2);
    EXPECT_EQ(outcome.tokens, static_cast<int64_t>(tokens.size()));
    nll += outcome.nll;
    bytes += static_cast<double>(outcome.bytes);
  }
  EXPECT_EQ(bytes, 19 + 55);
  ASSERT_EQ(result.measures.size(), 3u);
  const Measure &per_byte = result.measures[0], &per_token = result.measures[1], &perplexity = result.measures[2];
  EXPECT_EQ(per_byte.name, "bits_per_byte");
  EXPECT_NEAR(per_byte.value, nll / std::numbers::ln2 / bytes, 1e-9);
  EXPECT_NEAR(per_token.value, per_byte.value, 1e-9);  // one token per byte
  EXPECT_NEAR(perplexity.value, std::exp(nll / bytes), 1e-6);
  ASSERT_TRUE(per_byte.interval.has_value());
  EXPECT_LE(per_byte.interval->low, per_byte.value);
  EXPECT_GE(per_byte.interval->high, per_byte.value);
}

TEST_F(OnDemo, AnswersAreGreedyAndTheSameOneByOne) {
  const std::string header = R"({"task": {"kind": "numeric", "max_tokens": 6}})";
  const std::vector<std::string> items = {R"({"prompt": "1+1?", "answer": 2})", R"({"prompt": "1+2?", "answer": 3})",
                                          R"({"prompt": "Another", "answer": 1})"};
  const Task all = task(header + "\n" + items[0] + "\n" + items[1] + "\n" + items[2]);
  const TaskResult together = run_task(demo(), all, {});
  ASSERT_EQ(together.outcomes.size(), 3u);
  for (size_t i = 0; i < items.size(); ++i) {
    const Task one = task(header + "\n" + items[i]);
    const TaskResult alone = run_task(demo(), one, {});
    EXPECT_EQ(alone.outcomes[0].answer, together.outcomes[i].answer);
    EXPECT_NEAR(alone.outcomes[0].log_likelihoods[0], together.outcomes[i].log_likelihoods[0], 1e-3);
    EXPECT_LE(alone.outcomes[0].tokens, 6);
  }
}

TEST_F(OnDemo, CancelKeepsWhatIsDone) {
  const Task all = task(R"({"kind": "numeric", "prompt": "1?", "answer": 1, "max_tokens": 2}
{"kind": "numeric", "prompt": "2?", "answer": 2, "max_tokens": 2}
{"kind": "numeric", "prompt": "3?", "answer": 3, "max_tokens": 2})");
  std::atomic<bool> cancel = false;
  RunOptions options;
  options.cancel = &cancel;
  options.on_progress = [&](int64_t done) { cancel = done == 2; };
  const TaskResult result = run_task(demo(), all, options);
  EXPECT_EQ(result.outcomes.size(), 2u);
  EXPECT_TRUE(result.partial());
  cancel = true;
  const TaskResult none = run_task(demo(), all, options);
  EXPECT_TRUE(none.outcomes.empty());
  EXPECT_TRUE(none.measures.empty());
  EXPECT_FALSE(none.met().has_value());
  const Task text = task(R"({"kind": "perplexity", "text": "some text"})");
  EXPECT_TRUE(run_task(demo(), text, options).outcomes.empty());
}

TEST_F(OnDemo, AnItemThatCannotBeRunLosesNoneBeforeIt) {
  const Task all = task(R"({"kind": "numeric", "prompt": "1?", "answer": 1, "max_tokens": 2}
{"messages": [{"role": "user", "content": [{"type": "image", "data": "bm8gcGljdHVyZQ=="}]}], "kind": "contains", "contains": ["x"]})");
  const TaskResult result = run_task(demo(), all, {});
  EXPECT_EQ(result.outcomes.size(), 1u);
  ASSERT_TRUE(result.error);
  EXPECT_THROW(std::rethrow_exception(result.error), Error);
}

TEST_F(OnDemo, APromptBeyondTheContextIsNamedBeforeTheRun) {
  const Task good = task(R"({"kind": "numeric", "prompt": "x", "answer": 1})");
  EXPECT_NO_THROW(check_fits(demo(), good));
  const Task bad = task(R"({"kind": "numeric", "prompt": "x", "answer": 1})"
                        "\n"
                        R"({"kind": "numeric", "answer": 1, "prompt": ")" +
                        std::string(300'000, 'x') + "\"}");
  try {
    check_fits(demo(), bad);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("t.jsonl:2]"));
    EXPECT_THAT(error.what(), HasSubstr("context"));
  }
}

TEST(TargetOfATask, AccuracyAtLeastAndBitsAtMost) {
  Task task;
  task.items.resize(1);
  task.items[0].settings.kind = Kind::kNumeric;
  TaskResult result;
  result.task = &task;
  result.measures = {{"accuracy", 0.9, std::nullopt}};
  EXPECT_FALSE(result.met().has_value());
  task.threshold = 0.9;
  EXPECT_EQ(result.met(), true);
  task.threshold = 0.91;
  EXPECT_EQ(result.met(), false);
  task.items[0].settings.kind = Kind::kPerplexity;
  EXPECT_EQ(result.met(), true);
  task.threshold = 0.89;
  EXPECT_EQ(result.met(), false);
}

TEST(Grade, ByKind) {
  Item exact;
  exact.settings.kind = Kind::kExactMatch;
  exact.answers = {"Paris", "the capital"};
  EXPECT_TRUE(grade(exact, " paris."));
  EXPECT_TRUE(grade(exact, "The  Capital"));
  EXPECT_FALSE(grade(exact, "It is Paris"));
  exact.settings.match_within = true;
  EXPECT_TRUE(grade(exact, "It is Paris, of course"));
  EXPECT_FALSE(grade(exact, "a parisian"));
  exact.settings.normalise = false;
  EXPECT_FALSE(grade(exact, "it is paris"));
  Item fact;
  fact.settings.kind = Kind::kContains;
  fact.facts = {{"red"}, {"three", "3"}};
  fact.forbidden = {"blue"};
  EXPECT_TRUE(grade(fact, "Three Red circles."));
  EXPECT_TRUE(grade(fact, "3 circles, all red"));
  EXPECT_FALSE(grade(fact, "Three circles"));
  EXPECT_FALSE(grade(fact, "13 red circles"));
  EXPECT_FALSE(grade(fact, "three red and one blue"));
  Item sum;
  sum.settings.kind = Kind::kNumeric;
  sum.number = 42;
  EXPECT_TRUE(grade(sum, "40 + 2 = 42."));
  EXPECT_FALSE(grade(sum, "42 is 41"));
  EXPECT_FALSE(grade(sum, "none"));
  sum.settings.tolerance = 1;
  EXPECT_TRUE(grade(sum, "41"));
  EXPECT_FALSE(grade(sum, "40.9"));
}

TEST(NeedlePrompt, HasItsLengthAndItsFactAtItsDepth) {
  NeedleOptions options;
  for (const std::string& haystack :
       {std::string(), io::read_file(fs::path(PUNA_SOURCE_DIR) / "docs/SPEC.md", 1 << 20)}) {
    options.haystack = haystack;
    const NeedleMaker maker(demo(), options);
    for (const int64_t length : {200, 512, 2000})
      for (const double depth : {0.0, 25.0, 50.0, 100.0}) {
        const Needle needle = maker.make(length, depth, 1);
        EXPECT_NEAR(static_cast<double>(needle.prompt.tokens.size()), static_cast<double>(length), kLengthTolerance);
        const std::string fact = "The code of " + needle.name + " is " + needle.value + ".";
        const size_t at = needle.text.find(fact),
                     question = needle.text.find("\n\nWhat is the code of " + needle.name + "?");
        ASSERT_NE(at, std::string::npos) << needle.text;
        ASSERT_NE(question, std::string::npos);
        EXPECT_EQ(needle.text.find(fact, at + 1), std::string::npos);
        const double hay = static_cast<double>(question - fact.size());
        if (depth == 0) {
          EXPECT_EQ(at, 0u);
        }
        if (depth == 100) {
          EXPECT_EQ(at + fact.size(), question);
        }
        if (haystack.empty()) {
          EXPECT_NEAR(static_cast<double>(at), depth / 100 * hay, 60) << length << " " << depth;
        }
      }
  }
}

TEST(NeedlePrompt, TrialsDifferAndRepeat) {
  const NeedleOptions options;
  const NeedleMaker maker(demo(), options);
  EXPECT_EQ(maker.make(400, 50, 3).text, maker.make(400, 50, 3).text);
  EXPECT_NE(maker.make(400, 50, 3).text, maker.make(400, 50, 4).text);
  NeedleOptions other;
  other.seed = 1;
  EXPECT_NE(NeedleMaker(demo(), other).make(400, 50, 3).text, maker.make(400, 50, 3).text);
}

TEST(NeedlePrompt, ImpossibleLengthsAreErrors) {
  NeedleOptions options;
  EXPECT_THROW(NeedleMaker(demo(), options).make(30, 50, 0), UsageError);
  options.haystack = "Too short.";
  EXPECT_THROW(NeedleMaker(demo(), options).make(400, 50, 0), Error);
  options.haystack.clear();
  options.lengths = {demo().config().text.max_position_embeddings};
  EXPECT_THROW(run_needle(demo(), options), UsageError);
}

TEST(NeedleRun, CountsEveryCellAndStopsWhenCancelled) {
  NeedleOptions options;
  options.lengths = {150, 200};
  options.depths = {0, 100};
  options.trials = 2;
  options.max_tokens = 3;
  const NeedleResult result = run_needle(demo(), options);
  ASSERT_EQ(result.trials.size(), 8u);
  for (const size_t i : {0, 1})
    for (const size_t j : {0, 1}) EXPECT_EQ(result.count(i, j).total, 2);
  EXPECT_EQ(result.count().total, 8);
  EXPECT_FALSE(result.partial);
  std::atomic<bool> cancel = false;
  options.cancel = &cancel;
  options.on_progress = [&](int64_t done) { cancel = done == 3; };
  const NeedleResult cut = run_needle(demo(), options);
  EXPECT_EQ(cut.trials.size(), 3u);
  EXPECT_TRUE(cut.partial);
}

}  // namespace
}  // namespace puna::eval
