#include "engine/loaded_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/perplexity.h"
#include "engine/sequence.h"
#include "engine/threads.h"
#include "tests/support/golden.h"

namespace puna::engine {
namespace {

using testing::HasSubstr;

std::filesystem::path checkpoint(const char* name) { return test::golden_data() / "ckpt" / name; }

std::string message_of(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(SamplingDefaults, FromGenerationConfig) {
  const SamplingParams meta = sampling_defaults(Json::object(), "x");
  EXPECT_EQ(meta.temperature, 0.6);
  EXPECT_EQ(meta.top_p, 0.9);
  EXPECT_EQ(sampling_defaults({{"do_sample", false}, {"temperature", 0.7}}, "x").temperature, 0);
  const SamplingParams own = sampling_defaults({{"temperature", 1.1}, {"top_p", 0.5}, {"top_k", 40}}, "x");
  EXPECT_EQ(own.temperature, 1.1);
  EXPECT_EQ(own.top_p, 0.5);
  EXPECT_EQ(own.top_k, 40);
  EXPECT_THAT(message_of([] { sampling_defaults({{"temperature", "hot"}}, "g.json"); }), HasSubstr("g.json"));
  EXPECT_THAT(message_of([] { sampling_defaults({{"top_p", 7}}, "g.json"); }), HasSubstr("g.json"));
  EXPECT_NE(message_of([] { sampling_defaults(Json::array(), "g.json"); }), "");
}

TEST(Memory, SaysWhatIsNeededWhatIsThereAndWhatWouldFit) {
  const auto source = checkpoint::open_model(checkpoint("a_scout"));
  const MemoryNeed need = memory_need(*source, {.dtype = at::kFloat}, 4096);
  EXPECT_GT(need.weights_bytes, 1 << 20);
  EXPECT_EQ(message_of([&] { check_memory(*source, {.dtype = at::kFloat}, 4096, need.total(), "m"); }), "");
  const std::string tight =
      message_of([&] { check_memory(*source, {.dtype = at::kFloat}, 4096, need.total() - 1, "m"); });
  EXPECT_THAT(tight, HasSubstr("a context of at most 40"));
  EXPECT_THAT(tight, HasSubstr("--dtype bf16"));
  EXPECT_THAT(tight, HasSubstr("fits"));
  EXPECT_THAT(tight, HasSubstr("available"));
  const std::string hopeless = message_of([&] { check_memory(*source, {}, 4096, 1000, "m"); });
  EXPECT_THAT(hopeless, testing::Not(HasSubstr("--dtype")));
  EXPECT_THAT(hopeless, HasSubstr("more memory"));
}

TEST(Memory, WeightsThatStayAsTheyAreStoredNeedLess) {
  const auto source = checkpoint::open_model(test::golden_data() / "quant" / "w4a16_a");
  const model::LoadOptions stored = {.dtype = at::kBFloat16}, dense = {.weights = model::WeightForm::kDense};
  const int64_t need = memory_need(*source, stored, 4096).total();
  EXPECT_LT(need, memory_need(*source, dense, 4096).total());
  EXPECT_EQ(message_of([&] { check_memory(*source, stored, 4096, need, "m"); }), "");
  EXPECT_THAT(message_of([&] { check_memory(*source, dense, 4096, need, "m"); }),
              testing::AllOf(HasSubstr("--weights stored"), HasSubstr("fits")));
  EXPECT_THAT(message_of([&] { check_memory(*source, stored, 4096, need - 1, "m"); }),
              testing::AllOf(HasSubstr("as stored and BF16"), testing::Not(HasSubstr("--weights"))));
}

TEST(LoadModel, ErrorsNameTheThing) {
  LoadOptions options;
  options.model = "/no/such/model";
  EXPECT_THAT(message_of([&] { load_model(options); }), HasSubstr("/no/such/model"));
  options.model = checkpoint("d_text");
  EXPECT_THAT(message_of([&] { load_model(options); }), HasSubstr("tokenizer"));  // the golden data has none
  options.tokenizer = test::meta_rank_file();
  if (options.tokenizer->empty()) GTEST_SKIP() << "the llama-models wheel is not installed";
  EXPECT_THAT(message_of([&] { load_model(options); }), HasSubstr("202048"));
}

PerplexityOptions windows(int64_t context, int64_t stride) {
  PerplexityOptions options;
  options.context = context;
  options.stride = stride;
  return options;
}

TEST(Perplexity, EveryTokenIsScoredOnceWithTheLogitsOfAColdRun) {
  LoadOptions options;
  options.model = checkpoint("d_text");
  options.dtype = at::kFloat;
  options.need_tokenizer = false;
  const LoadedModel loaded = load_model(options);
  std::vector<TokenId> tokens;
  for (int i = 0; i < 50; ++i) tokens.push_back((i * 37 + 11) % 400);

  // Windows of 20 that share 12: token t is predicted from at least 12 tokens before it, except in the first window.
  double expected = 0;
  for (int64_t target = 1; target < 50; ++target) {
    const int64_t end = target < 20 ? 20 : std::min<int64_t>(50, 20 + (target - 20) / 8 * 8 + 8);
    const int64_t begin = std::max<int64_t>(0, end - 20);
    Prompt prompt;
    prompt.tokens.assign(tokens.begin() + begin, tokens.begin() + target);
    Sequence sequence(loaded);
    const auto logits = sequence.prefill(prompt).value();
    expected += log_sum_exp(logits) - logits[tokens[target]];
  }
  const PerplexityResult result = perplexity(loaded, tokens, windows(20, 8)).value();
  EXPECT_EQ(result.tokens, 49);
  EXPECT_NEAR(result.nll, expected, 2e-3);
  int64_t in_buckets = 0;
  for (const auto& bucket : result.by_position) in_buckets += bucket.tokens;
  EXPECT_EQ(in_buckets, 49);

  EXPECT_EQ(perplexity(loaded, tokens, windows(20, 0))->tokens, 49);
  EXPECT_THROW(perplexity(loaded, tokens, windows(1, 0)), UsageError);
  EXPECT_THROW(perplexity(loaded, tokens, windows(20, 20)), UsageError);
  EXPECT_THROW(perplexity(loaded, std::span(tokens).first(1), windows(20, 0)), Error);
}

TEST(Threads, DefaultIsAtLeastOneAndBadCountsAreRefused) {
  EXPECT_GE(default_threads(), 1);
  EXPECT_THROW(set_threads(-1), UsageError);
  EXPECT_THROW(set_threads(100'000), UsageError);
}

}  // namespace
}  // namespace puna::engine
