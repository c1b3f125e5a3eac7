// Guessing never changes what is written, only how fast.
#include "engine/speculation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/sequence.h"
#include "tests/engine/tiny.h"

namespace puna::engine {
namespace {

using test::alone;
using test::random_tokens;
using test::request_of;
using testing::ElementsAre;

TEST(Lookup, TheLongestMatchAndOfEqualsTheLatest) {
  using Tokens = std::vector<TokenId>;
  EXPECT_THAT(guess_by_lookup(Tokens{1, 2, 3, 9, 1, 2}, 2), ElementsAre(3, 9));
  EXPECT_THAT(guess_by_lookup(Tokens{1, 2, 3, 9, 1, 2}, 9), ElementsAre(3, 9, 1, 2));
  EXPECT_THAT(guess_by_lookup(Tokens{1, 2, 3, 1, 2, 4, 1, 2}, 1), ElementsAre(4));
  EXPECT_THAT(guess_by_lookup(Tokens{7, 1, 2, 3, 8, 1, 2, 4, 7, 1, 2}, 1), ElementsAre(3));
  EXPECT_THAT(guess_by_lookup(Tokens{5, 5, 5, 5}, 3), ElementsAre(5));
  EXPECT_THAT(guess_by_lookup(Tokens{1, 2, 3}, 3), ElementsAre());
  EXPECT_THAT(guess_by_lookup(Tokens{2, 3, 9, 8, 3}, 3), ElementsAre()) << "one token is no match";
  EXPECT_THAT(guess_by_lookup(Tokens{1}, 3), ElementsAre());
  EXPECT_THAT(guess_by_lookup(Tokens{1, 2, 1, 2}, 0), ElementsAre());
}

const LoadedModel& tiny() {
  static const LoadedModel loaded = test::tiny_model();
  return loaded;
}

EngineOptions small_options() {
  EngineOptions options;
  options.step_tokens = 40;
  options.max_sequences = 8;
  options.context_tokens = 128;
  options.cache_bytes = test::cache_bytes(tiny(), 300);
  return options;
}

std::vector<Request> repetitive_requests() {
  std::vector<Request> requests;
  for (uint64_t i = 0; i < 6; ++i) {
    std::vector<TokenId> tokens;
    for (int repeat = 0; repeat < 4; ++repeat)
      for (const TokenId id : random_tokens(7 + static_cast<int64_t>(i), i)) tokens.push_back(id);
    requests.push_back(request_of(tokens, 60));
    if (i % 2 == 0) continue;
    requests.back().sampling.temperature = 0.7;
    requests.back().sampling.top_p = 0.8;
    requests.back().sampling.repetition_penalty = 1.1;
    requests.back().sampling.seed = i;
  }
  return requests;
}

// Returns the share of guesses that was accepted in greedy requests.
double expect_same_text(Engine& engine) {
  const std::vector<Request> requests = repetitive_requests();
  std::vector<std::shared_ptr<Ticket>> tickets;
  for (const Request& request : requests) tickets.push_back(engine.submit(request));
  double drafted = 0, accepted = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const Generation result = engine.run(*tickets[i]).completions[0];
    EXPECT_EQ(result.tokens, alone(tiny(), requests[i])) << i;
    EXPECT_LE(result.accepted_tokens, result.drafted_tokens);
    if (i % 2 == 1) continue;
    drafted += static_cast<double>(result.drafted_tokens);
    accepted += static_cast<double>(result.accepted_tokens);
  }
  EXPECT_GT(engine.stats().drafted_tokens, 0);
  EXPECT_EQ(engine.stats().used_blocks, 0);
  return accepted / std::max(drafted, 1.0);
}

TEST(Speculation, LookupGivesTheSameText) {
  EngineOptions options = small_options();
  options.lookup_tokens = 5;
  Engine engine(tiny(), options);
  expect_same_text(engine);
}

TEST(Speculation, AnyDraftModelGivesTheSameText) {
  const LoadedModel other = test::tiny_model({.seed = 99, .chunk = 48});
  for (const LoadedModel* draft : {&other, &tiny()}) {
    EngineOptions options = small_options();
    options.draft = draft;
    options.draft_tokens = 3;
    Engine engine(tiny(), options);
    const double share = expect_same_text(engine);
    EXPECT_EQ(share > 0.9, draft == &tiny()) << share << "; a model guesses its own greedy text";
    EXPECT_LT(engine.stats().rows, 6 * 60 * 5) << "rejected guesses are few";
  }
}

TEST(Speculation, PreemptionAndGuessesTogether) {
  EngineOptions options = small_options();
  options.draft = &tiny();
  options.lookup_tokens = 3;
  options.cache_bytes = test::cache_bytes(tiny(), 14);
  options.context_tokens = 32;
  Engine engine(tiny(), options);
  expect_same_text(engine);
  EXPECT_GT(engine.stats().preemptions, 0);
}

TEST(Speculation, ADraftModelOfAnotherVocabularyIsRefused) {
  const LoadedModel other = test::tiny_model({.vocab_size = 97});
  EngineOptions options = small_options();
  options.draft = &other;
  EXPECT_THROW(Engine(tiny(), options), Error);
}

std::vector<double> softmax(std::span<const float> logits) {
  std::vector<double> p;
  for (const float x : logits) p.push_back(std::exp(x - log_sum_exp(logits)));
  return p;
}

// The second token of many draws, each checked against a guess, against its exact distribution.
TEST(Speculation, SampledTokensHaveTheModelsDistribution) {
  const std::vector<TokenId> prompt = random_tokens(12, 8);
  Sequence sequence(tiny());
  const std::vector<double> first = softmax(sequence.prefill(test::prompt_of(prompt)).value());
  std::vector<double> expected(first.size(), 0);
  for (size_t x = 0; x < first.size(); ++x) {
    std::vector<TokenId> longer = prompt;
    longer.push_back(static_cast<TokenId>(x));
    const std::vector<double> second = softmax(sequence.prefill(test::prompt_of(longer)).value());
    for (size_t y = 0; y < second.size(); ++y) expected[y] += first[x] * second[y];
  }

  EngineOptions options = small_options();
  options.step_tokens = 512;
  options.max_sequences = 100;
  options.draft = &tiny();
  options.draft_tokens = 1;
  Engine engine(tiny(), options);
  constexpr int kRounds = 30, kDraws = 100;
  std::vector<double> counts(expected.size(), 0);
  for (int round = 0; round < kRounds; ++round) {
    Request request = request_of(prompt, 3);
    request.sampling.temperature = request.sampling.top_p = 1;
    request.sampling.seed = static_cast<uint64_t>(round) * kDraws;
    request.completions = kDraws;
    for (const Generation& one : engine.run(*engine.submit(request)).completions)
      counts[static_cast<size_t>(one.tokens.at(1))] += 1;
  }
  EXPECT_GT(engine.stats().accepted_tokens, 50);
  double chi_square = 0, rest_expected = kRounds * kDraws, rest_count = kRounds * kDraws;
  int cells = 0;
  for (size_t y = 0; y < expected.size(); ++y) {
    const double e = expected[y] * kRounds * kDraws;
    if (e < 8) continue;
    chi_square += (counts[y] - e) * (counts[y] - e) / e;
    rest_expected -= e, rest_count -= counts[y];
    ++cells;
  }
  chi_square += (rest_count - rest_expected) * (rest_count - rest_expected) / std::max(rest_expected, 1.0);
  // Mean `cells`, deviation sqrt(2 cells): five deviations. The seeds are fixed, so this does not vary.
  EXPECT_GT(cells, 10);
  EXPECT_LT(chi_square, cells + 5 * std::sqrt(2.0 * cells));
}

}  // namespace
}  // namespace puna::engine
