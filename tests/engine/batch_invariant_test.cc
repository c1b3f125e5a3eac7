// --batch-invariant: the same bits alone, in a crowd, cached, preempted and on any number of threads, whatever the
// weights and the cache are stored as; and how far the default is from that.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "engine/engine.h"
#include "tests/engine/tiny.h"
#include "tests/support/golden.h"

namespace puna::engine {
namespace {

using test::random_tokens;
using test::request_of;

/// Log-probabilities: 4 for each token of the prompt, then 4 for each of the answer.
std::vector<double> numbers(const Response& response) {
  std::vector<double> values;
  const auto add = [&](const std::vector<Sample>& samples) {
    for (const Sample& sample : samples) {
      values.push_back(sample.logprob);
      for (const TokenLogprob& top : sample.top) values.push_back(top.logprob);
    }
  };
  add(response.prompt_samples);
  add(response.completions[0].samples);
  return values;
}

Request long_request() {
  Request request = request_of(random_tokens(150, 1), 40);
  request.sampling.logprobs = 3;
  return request;
}

Request reading() {
  Request request = request_of(random_tokens(150, 1), 0);
  request.prompt_logprobs = 3;
  return request;
}

EngineOptions options_of(const LoadedModel& loaded, bool invariant, bool int8_cache, int64_t blocks) {
  EngineOptions options;
  options.step_tokens = 16;
  options.max_sequences = 8;
  options.context_tokens = 32;
  options.batch_invariant = invariant;
  options.int8_cache = int8_cache;
  const auto page =
      model::page_bytes(loaded.config().text, model::PageFormat::of(loaded.dtype, loaded.device, int8_cache));
  options.cache_bytes = blocks * (page.global + page.chunk);
  return options;
}

/// The request's numbers while five others run, the last in order of priority.
std::vector<double> in_a_crowd(Engine& engine, Request request) {
  for (uint64_t i = 0; i < 5; ++i) {
    Request other = request_of(random_tokens(150, i % 2), 60);
    other.prompt.tokens.resize(40 + 23 * i);
    engine.submit(other);
  }
  request.priority = -1;
  return numbers(engine.run(*engine.submit(request)));
}

struct Kind {
  const char* name;
  const LoadedModel* loaded;
  bool int8_cache;
  double bound;  // of what a crowd changes without --batch-invariant
};

LoadedModel golden_int4() {
  LoadOptions load;
  load.model = test::golden_data() / "quant" / "w4a16_a";
  load.need_tokenizer = false;
  load.check_memory = false;
  return load_model(load);
}

std::vector<Kind> kinds() {
  static const LoadedModel fp32 = test::tiny_model({.width = 256});
  static const LoadedModel bf16 = test::tiny_model({.dtype = at::kBFloat16, .width = 256});
  static const LoadedModel int4 = golden_int4();
  return {{"FP32", &fp32, false, 2e-5},
          {"FP32, INT8 cache", &fp32, true, 2e-3},
          {"BF16", &bf16, false, 0.05},
          {"BF16, INT8 cache", &bf16, true, 0.05},
          {"INT4", &int4, false, 0.05}};
}

TEST(BatchInvariant, BitsDoNotDependOnAnythingElse) {
  int64_t preemptions = 0;
  for (const Kind& kind : kinds()) {
    SCOPED_TRACE(kind.name);
    const EngineOptions options = options_of(*kind.loaded, true, kind.int8_cache, 30);
    Engine quiet(*kind.loaded, options), crowded(*kind.loaded, options);
    const std::vector<double> answer = numbers(quiet.run(*quiet.submit(long_request())));
    ASSERT_EQ(answer.size(), 160u);
    EXPECT_EQ(numbers(quiet.run(*quiet.submit(long_request()))), answer) << "with its prefix cached";
    EXPECT_GT(quiet.stats().reused_tokens, 0);
    EXPECT_EQ(in_a_crowd(crowded, long_request()), answer) << "in a crowd";
    preemptions += crowded.stats().preemptions;
    const std::vector<double> prompt = numbers(quiet.run(*quiet.submit(reading())));
    ASSERT_EQ(prompt.size(), 149u * 4);
    EXPECT_EQ(in_a_crowd(crowded, reading()), prompt) << "of the prompt, in a crowd";
  }
  EXPECT_GT(preemptions, 0);
}

TEST(BatchInvariant, BitsDoNotDependOnTheNumberOfThreads) {
  for (const Kind& kind : kinds()) {
    SCOPED_TRACE(kind.name);
    const EngineOptions options = options_of(*kind.loaded, true, kind.int8_cache, 30);
    std::vector<std::vector<double>> found;
    for (const int threads : {1, 2}) {
      at::set_num_threads(threads);
      Engine engine(*kind.loaded, options);
      found.push_back(numbers(engine.run(*engine.submit(long_request()))));
      for (const double value : numbers(engine.run(*engine.submit(reading())))) found.back().push_back(value);
    }
    at::set_num_threads(1);
    EXPECT_EQ(found[1], found[0]);
  }
}

TEST(BatchInvariant, WithoutItACrowdChangesRoundingAlone) {
  for (const Kind& kind : kinds()) {
    SCOPED_TRACE(kind.name);
    const EngineOptions options = options_of(*kind.loaded, false, kind.int8_cache, 200);
    Engine quiet(*kind.loaded, options), crowded(*kind.loaded, options);
    const std::vector<double> alone = numbers(quiet.run(*quiet.submit(reading())));
    const std::vector<double> crowd = in_a_crowd(crowded, reading());
    ASSERT_EQ(alone.size(), crowd.size());
    double worst = 0;
    for (size_t i = 0; i < alone.size(); i += 4) worst = std::max(worst, std::abs(alone[i] - crowd[i]));
    EXPECT_LE(worst, kind.bound);
    std::printf("%-18s a crowd moves log-probabilities of the prompt by at most %.2g\n", kind.name, worst);
  }
}

TEST(BatchInvariant, TakesNoGuesses) {
  static const LoadedModel tiny = test::tiny_model();
  EngineOptions options = options_of(tiny, true, false, 30);
  options.lookup_tokens = 4;
  EXPECT_THROW(Engine(tiny, options), UsageError);
}

}  // namespace
}  // namespace puna::engine
