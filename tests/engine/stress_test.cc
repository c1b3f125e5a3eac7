// Everything at once in a cache that is too small: what runs to its end has the text that it has alone, what does not
// leaves nothing behind.
#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <stdexcept>

#include "engine/engine.h"
#include "tests/engine/tiny.h"

namespace puna::engine {
namespace {

using test::alone;
using test::random_tokens;
using test::request_of;

const LoadedModel& tiny() {
  static const LoadedModel loaded = test::tiny_model();
  return loaded;
}

struct Case {
  Request request;
  int64_t cancel_at = -1;  // steps after its arrival
  bool throws = false;
  std::shared_ptr<Ticket> ticket;
  int64_t arrival = 0;
};

std::vector<TokenId> tokens_of(std::mt19937& random) {
  const auto length = static_cast<int64_t>(1 + random() % 100);
  if (random() % 2 == 0) return random_tokens(length, random() % 1000);
  std::vector<TokenId> tokens = random_tokens(48, random() % 3);  // beginnings that others have too
  for (const TokenId id : random_tokens(length / 2, random() % 4)) tokens.push_back(id);
  return tokens;
}

Case random_case(std::mt19937& random) {
  Case one;
  one.request = request_of(tokens_of(random), 1 + static_cast<int64_t>(random() % 60));
  if (random() % 5 == 0)
    one.request.prompt = test::image_prompt(tiny(), static_cast<int64_t>(random() % 40), {1, 2 + random() % 2});
  if (random() % 2 == 0) one.request.sampling.temperature = one.request.sampling.top_p = 1;
  one.request.sampling.seed = random() % 100;
  one.request.completions = 1 + static_cast<int>(random() % 3);
  one.request.priority = static_cast<int>(random() % 3);
  if (random() % 4 == 0) one.request.prompt_logprobs = 0;
  switch (random() % 8) {
    case 0:
      one.cancel_at = static_cast<int64_t>(random() % 40);
      break;
    case 1:
      one.throws = true;
      one.request.on_prefill = [](int64_t done, int64_t total) {
        if (2 * done >= total) throw std::runtime_error("gone");
      };
      break;
    case 2:
      one.request.deadline = Clock::now() + std::chrono::microseconds(random() % 20000);
      break;
    default:
      break;
  }
  return one;
}

// Completions that ran to their end are what each is alone; the others are the beginning of it.
void expect_as_alone(const Case& one, bool exact) {
  const Response& response = one.ticket->response();
  const bool cut = one.cancel_at >= 0 || one.throws || one.request.deadline.has_value();
  EXPECT_EQ(response.error != nullptr, one.throws);
  for (size_t c = 0; c < response.completions.size(); ++c) {
    const Generation& result = response.completions[c];
    EXPECT_TRUE(cut || result.reason == StopReason::kMaxTokens) << stop_reason_name(result.reason);
    if (!exact) continue;
    Request single = one.request;
    single.sampling.seed += c;
    std::vector<TokenId> whole = alone(tiny(), single);
    if (result.reason != StopReason::kMaxTokens) whole.resize(std::min(whole.size(), result.tokens.size()));
    EXPECT_EQ(result.tokens, whole) << c;
  }
  if (!cut && one.request.prompt_logprobs >= 0) {
    EXPECT_EQ(response.prompt_samples.size() + 1, one.request.prompt.tokens.size());
  }
}

void run_all(const EngineOptions& options, unsigned seed) {
  Engine engine(tiny(), options);
  std::mt19937 random(seed);
  std::vector<Case> cases;
  int64_t steps = 0;
  for (int i = 0; i < 40; ++i) {
    cases.push_back(random_case(random));
    cases.back().arrival = steps;
    cases.back().ticket = engine.submit(cases.back().request);
    for (uint64_t pause = random() % 4; pause > 0; --pause, ++steps) {
      engine.step();
      for (const Case& one : cases)
        if (one.cancel_at >= 0 && steps >= one.arrival + one.cancel_at) one.ticket->cancel();
    }
  }
  for (; engine.step(); ++steps) {
    ASSERT_LT(steps, 20000) << "goes on for ever";
    for (const Case& one : cases)
      if (one.cancel_at >= 0 && steps >= one.arrival + one.cancel_at) one.ticket->cancel();
  }
  for (size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(i);
    ASSERT_TRUE(cases[i].ticket->done());
    expect_as_alone(cases[i], !options.batch_invariant);
  }
  const EngineStats stats = engine.stats();
  EXPECT_EQ(stats.used_blocks, 0);
  EXPECT_EQ(stats.running + stats.waiting, 0);
  EXPECT_GT(stats.preemptions, 0);
  EXPECT_GT(stats.evictions, 0);
}

EngineOptions small_options() {
  EngineOptions options;
  options.step_tokens = 24;
  options.max_sequences = 10;
  options.context_tokens = 64;
  options.cache_bytes = test::cache_bytes(tiny(), 24);
  return options;
}

TEST(EngineStress, RequestsThatComeGoForkAndFail) {
  for (const unsigned seed : {1u, 2u, 3u}) {
    SCOPED_TRACE(seed);
    run_all(small_options(), seed);
  }
}

TEST(EngineStress, TheSameWithGuesses) {
  EngineOptions options = small_options();
  options.lookup_tokens = 4;
  run_all(options, 4);
  options.draft = &tiny();
  options.draft_tokens = 3;
  run_all(options, 5);
}

TEST(EngineStress, TheSameWithBatchInvariance) {
  EngineOptions options = small_options();
  options.batch_invariant = true;
  run_all(options, 6);
}

}  // namespace
}  // namespace puna::engine
