// The engine against one sequence by itself: whatever shares a step, a block or the cache, the text is the same.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "base/error.h"
#include "base/memory.h"
#include "tests/engine/tiny.h"

namespace puna::engine {
namespace {

using test::alone;
using test::prompt_of;
using test::random_tokens;
using test::request_of;

const LoadedModel& tiny() {
  static const LoadedModel loaded = test::tiny_model();
  return loaded;
}

EngineOptions small_options() {
  EngineOptions options;
  options.step_tokens = 24;
  options.max_sequences = 16;
  options.context_tokens = 32;
  options.cache_bytes = test::cache_bytes(tiny(), 400);
  return options;
}

Request sampled(std::vector<TokenId> tokens, int64_t max_tokens, uint64_t seed) {
  Request request = request_of(std::move(tokens), max_tokens);
  request.sampling.temperature = 1;
  request.sampling.top_p = 1;
  request.sampling.seed = seed;
  return request;
}

std::vector<Request> mixed_requests(int count, int64_t max_tokens) {
  std::vector<Request> requests;
  for (int i = 0; i < count; ++i) {
    const auto tokens = random_tokens(1 + (i * 37) % 91, static_cast<uint64_t>(i));
    requests.push_back(i % 2 == 0 ? request_of(tokens, max_tokens) : sampled(tokens, max_tokens, 100 + i));
  }
  return requests;
}

std::vector<std::shared_ptr<Ticket>> submit_all(Engine& engine, const std::vector<Request>& requests) {
  std::vector<std::shared_ptr<Ticket>> tickets;
  for (const Request& request : requests) tickets.push_back(engine.submit(request));
  return tickets;
}

void expect_all_as_alone(Engine& engine, const std::vector<Request>& requests) {
  const auto tickets = submit_all(engine, requests);
  for (size_t i = 0; i < requests.size(); ++i)
    EXPECT_EQ(engine.run(*tickets[i]).completions[0].tokens, alone(tiny(), requests[i])) << i;
  EXPECT_EQ(engine.stats().used_blocks, 0);
}

TEST(Engine, ABatchOfManyGivesEachWhatItGetsAlone) {
  Engine engine(tiny(), small_options());
  expect_all_as_alone(engine, mixed_requests(14, 40));
  EXPECT_GT(engine.stats().cached_blocks, 0);
}

TEST(Engine, EveryStorageOfKeysAndValuesGivesTheSameText) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    const LoadedModel loaded = test::tiny_model({.dtype = dtype, .chunk = 21});
    Engine engine(loaded, small_options());
    const Request request = request_of(random_tokens(70, 3), 40);
    EXPECT_EQ(engine.run(*engine.submit(request)).completions[0].tokens, alone(loaded, request)) << dtype;
  }
}

TEST(Engine, Int8KeysAndValuesAreNearAndTakeLess) {
  EngineOptions options = small_options(), int8 = options;
  int8.int8_cache = true;
  Engine exact(tiny(), options), small(tiny(), int8);
  EXPECT_GT(small.stats().capacity_blocks, exact.stats().capacity_blocks);
  Request request = request_of(random_tokens(60, 4), 0);
  request.prompt_logprobs = 0;
  const auto a = exact.run(*exact.submit(request)).prompt_samples, b = small.run(*small.submit(request)).prompt_samples;
  ASSERT_EQ(a.size(), 59u);
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::abs(a[i].logprob - b[i].logprob);
  EXPECT_LT(sum / static_cast<double>(a.size()), 0.1);
  EXPECT_GT(sum, 0);
}

TEST(Engine, DecodeEqualsPrefill) {
  Engine engine(tiny(), small_options());
  const Request request = sampled(random_tokens(20, 1), 60, 7);
  const Generation written = engine.run(*engine.submit(request)).completions[0];
  Request whole = request_of(request.prompt.tokens, 0);
  whole.prompt.tokens.insert(whole.prompt.tokens.end(), written.tokens.begin(), written.tokens.end());
  whole.prompt_logprobs = 2;
  const Response read = engine.run(*engine.submit(whole));
  ASSERT_EQ(read.prompt_samples.size(), 79u);
  for (size_t i = 0; i < 60; ++i) {
    EXPECT_EQ(read.prompt_samples[19 + i].id, written.tokens[i]);
    EXPECT_NEAR(read.prompt_samples[19 + i].logprob, written.samples[i].logprob, 1e-4) << i;
    EXPECT_EQ(read.prompt_samples[19 + i].top.size(), 2u);
  }
  EXPECT_TRUE(read.completions[0].tokens.empty());
}

TEST(Engine, APrefixIsFoundCountedAndGivesTheSameText) {
  Engine engine(tiny(), small_options());
  const std::vector<TokenId> shared = random_tokens(70, 5);
  engine.run(*engine.submit(request_of(shared, 8)));
  for (const int64_t extra : {1, 9, 40}) {
    std::vector<TokenId> tokens = shared;
    for (const TokenId id : random_tokens(extra, 50 + extra)) tokens.push_back(id);
    const Request request = request_of(tokens, 30);
    const int64_t rows = engine.stats().rows;
    const Generation result = engine.run(*engine.submit(request)).completions[0];
    EXPECT_EQ(result.tokens, alone(tiny(), request)) << extra;
    EXPECT_EQ(result.reused_tokens, 64) << "whole blocks of the 70, and a chunk edge";
    EXPECT_EQ(engine.stats().rows - rows, 70 + extra - 64 + 29);
  }
  const int64_t rows = engine.stats().rows;
  engine.run(*engine.submit(request_of(random_tokens(64, 5), 1)));
  EXPECT_EQ(engine.stats().rows - rows, 1) << "a prompt that is all there runs its last token alone";
}

TEST(Engine, PromptsThatArriveTogetherRunWhatTheyShareOnce) {
  for (const bool invariant : {false, true}) {
    EngineOptions options = small_options();
    options.batch_invariant = invariant;
    Engine engine(tiny(), options);
    std::vector<Request> requests;
    for (uint64_t i = 0; i < 8; ++i) {
      std::vector<TokenId> tokens = random_tokens(200, 5);
      for (const TokenId id : random_tokens(3, 60 + i)) tokens.push_back(id);
      requests.push_back(request_of(tokens, 5));
    }
    requests.push_back(request_of(random_tokens(30, 99), 5));
    const auto tickets = submit_all(engine, requests);
    while (engine.step()) {
    }
    for (size_t i = 0; i < requests.size(); ++i) {
      const Generation& result = tickets[i]->response().completions[0];
      if (!invariant) {
        EXPECT_EQ(result.tokens, alone(tiny(), requests[i])) << i;
      }
      EXPECT_EQ(result.reused_tokens >= 200 - 64 - 16, i > 0 && i < 8) << i << ": " << result.reused_tokens;
    }
    EXPECT_LT(engine.stats().rows, 203 + 7 * 90 + 9 * 5 + 30);
  }
}

TEST(Engine, PlacesForAllAnswersOfAPromptAreKeptFree) {
  EngineOptions options = small_options();
  options.max_sequences = 4;
  Engine engine(tiny(), options);
  std::vector<Request> requests;
  for (uint64_t i = 0; i < 3; ++i) {
    requests.push_back(sampled(random_tokens(40, 70 + i), 12, i));
    requests.back().completions = 3;
  }
  const auto tickets = submit_all(engine, requests);
  while (engine.step()) EXPECT_LE(engine.stats().running, 4);
  for (const auto& ticket : tickets) EXPECT_EQ(ticket->response().completions.size(), 3U);
  EXPECT_EQ(engine.stats().preemptions, 0);
}

TEST(Engine, SmallCachePreemptsAndTheTextIsTheSame) {
  EngineOptions options = small_options();
  options.cache_bytes = test::cache_bytes(tiny(), 16);
  Engine engine(tiny(), options);
  std::vector<Request> requests;
  for (int i = 0; i < 8; ++i) {
    requests.push_back(sampled(random_tokens(30 + i, 70 + i), 70, 3 * i));
    if (i % 2 == 0) requests.back().completions = 2;
  }
  const auto tickets = submit_all(engine, requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    const Response& response = engine.run(*tickets[i]);
    for (size_t c = 0; c < response.completions.size(); ++c) {
      Request single = requests[i];
      single.sampling.seed += c;
      EXPECT_EQ(response.completions[c].tokens, alone(tiny(), single)) << i << " " << c;
    }
  }
  EXPECT_GT(engine.stats().preemptions, 0);
  EXPECT_GT(engine.stats().evictions, 0);
  EXPECT_EQ(engine.stats().used_blocks, 0);
}

TEST(Engine, AnAnswerThatFillsTheCacheEndsThere) {
  EngineOptions options = small_options();
  options.cache_bytes = test::cache_bytes(tiny(), 4);
  Engine engine(tiny(), options);
  const int64_t longest = engine.shape().longest();
  ASSERT_GE(longest, 48);
  const Generation result = engine.run(*engine.submit(request_of(random_tokens(20, 1), 500))).completions[0];
  EXPECT_EQ(result.reason, StopReason::kContextFull);
  EXPECT_EQ(std::ssize(result.tokens), longest - 20 + 1) << "the last token needs no place";
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Engine, RefusesWhatCouldNeverRunAndSaysWhatWould) {
  EngineOptions options = small_options();
  options.cache_bytes = test::cache_bytes(tiny(), 4);
  Engine engine(tiny(), options);
  using testing::HasSubstr;
  const int64_t needed = engine.cache_bytes_for(201);
  EXPECT_THAT(error_of([&] { engine.submit(request_of(random_tokens(200, 1), 4)); }),
              testing::AllOf(HasSubstr("200 tokens"), HasSubstr(format_bytes(needed)), HasSubstr("--cache-memory")));
  EngineOptions enough = options;
  enough.cache_bytes = needed;
  Engine larger(tiny(), enough);
  EXPECT_EQ(larger.run(*larger.submit(request_of(random_tokens(200, 1), 1))).completions[0].tokens.size(), 1u);
  EXPECT_THAT(error_of([&] { engine.submit(request_of(random_tokens(5000, 1), 4)); }), HasSubstr("context is 4096"));
  EXPECT_THAT(error_of([&] { engine.submit(request_of({3, 96}, 4)); }), HasSubstr("token 96 at position 1"));
  EXPECT_THAT(error_of([&] { engine.submit(request_of({}, 4)); }), HasSubstr("empty"));
  EXPECT_THAT(error_of([&] { engine.submit(request_of({3}, 0)); }), HasSubstr("--max-tokens"));
  Request many = request_of({3}, 4);
  many.completions = 17;
  EXPECT_THAT(error_of([&] { engine.submit(many); }), HasSubstr("from 1 to 16"));
  EngineOptions tiny_cache = options;
  tiny_cache.cache_bytes = 100;
  EXPECT_THAT(error_of([&] { Engine(tiny(), tiny_cache); }), HasSubstr("hold no sequence"));
  EXPECT_EQ(engine.step(), false) << "nothing that was refused is left behind";
}

TEST(Engine, AThousandShortRequestsFromFourThreads) {
  EngineOptions options = small_options();
  options.step_tokens = 128;
  options.max_sequences = 64;
  options.cache_bytes = test::cache_bytes(tiny(), 200);
  Engine engine(tiny(), options);
  std::vector<std::shared_ptr<Ticket>> tickets(1000);
  const auto request = [](int i) {
    return request_of(random_tokens(1 + i % 13, static_cast<uint64_t>(i % 50)), 1 + i % 4);
  };
  {
    std::vector<std::jthread> clients;
    for (int t = 0; t < 4; ++t)
      clients.emplace_back([&, t] {
        for (int i = t; i < 1000; i += 4) tickets[static_cast<size_t>(i)] = engine.submit(request(i));
      });
  }
  std::jthread server([&](std::stop_token stop) { engine.serve(stop); });
  for (int i = 0; i < 1000; ++i) {
    const Generation& result = tickets[static_cast<size_t>(i)]->wait().completions[0];
    EXPECT_EQ(std::ssize(result.tokens), 1 + i % 4);
    if (i % 97 == 0) {
      EXPECT_EQ(result.tokens, alone(tiny(), request(i))) << i;
    }
  }
  EXPECT_EQ(engine.stats().used_blocks, 0);
  EXPECT_EQ(engine.stats().waiting, 0);
}

TEST(Engine, CompletionsShareTheirPromptAndDrawAsWithTheirOwnSeeds) {
  Engine engine(tiny(), small_options());
  Request request = sampled(random_tokens(50, 9), 20, 40);
  request.completions = 5;
  const Response response = engine.run(*engine.submit(request));
  EXPECT_EQ(engine.stats().rows, 50 + 5 * 19) << "the prompt runs once";
  for (int i = 0; i < 5; ++i) {
    Request single = request;
    single.sampling.seed = 40 + static_cast<uint64_t>(i);
    EXPECT_EQ(response.completions[static_cast<size_t>(i)].tokens, alone(tiny(), single)) << i;
  }
}

TEST(Engine, AForkTreeFindsItsTrunk) {
  Engine engine(tiny(), small_options());
  std::vector<std::vector<TokenId>> leaves = {random_tokens(40, 12)};
  for (int depth = 0; depth < 3; ++depth) {
    std::vector<std::vector<TokenId>> next;
    for (const auto& leaf : leaves) {
      Request request = sampled(leaf, 24, 5);
      request.completions = 2;
      const Response response = engine.run(*engine.submit(request));
      for (int c = 0; c < 2; ++c) {
        Request single = request;
        single.sampling.seed += static_cast<uint64_t>(c);
        EXPECT_EQ(response.completions[static_cast<size_t>(c)].tokens, alone(tiny(), single));
        next.push_back(leaf);
        const auto& tokens = response.completions[static_cast<size_t>(c)].tokens;
        next.back().insert(next.back().end(), tokens.begin(), tokens.end());
      }
      if (depth > 0) {
        EXPECT_GE(response.completions[0].reused_tokens, 32) << depth;
      }
    }
    leaves = std::move(next);
  }
}

}  // namespace
}  // namespace puna::engine
