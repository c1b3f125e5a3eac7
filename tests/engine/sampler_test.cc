#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "base/error.h"
#include "engine/filters.h"

namespace puna::engine {
namespace {

SamplingParams plain(double temperature = 1) {
  SamplingParams params;
  params.temperature = temperature;
  params.top_p = 1;
  return params;
}

std::vector<float> random_logits(size_t count, uint64_t seed, float spread = 3) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(count);
  for (float& x : logits) x = normal(generator);
  return logits;
}

std::map<TokenId, int> draw_many(const SamplingParams& params, const std::vector<float>& logits, int draws) {
  Sampler sampler(params);
  std::map<TokenId, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[sampler.sample(logits).id];
  return counts;
}

// Random123's published vectors for philox4x32, 10 rounds.
TEST(Philox, KnownAnswers) {
  const uint32_t counters[3][4] = {
      {0, 0, 0, 0}, {~0u, ~0u, ~0u, ~0u}, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}};
  const uint32_t keys[3][2] = {{0, 0}, {~0u, ~0u}, {0xa4093822, 0x299f31d0}};
  const uint32_t expected[3][4] = {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
                                   {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
                                   {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}};
  for (int i = 0; i < 3; ++i) {
    uint32_t out[4];
    philox(counters[i], keys[i], out);
    for (int j = 0; j < 4; ++j) EXPECT_EQ(out[j], expected[i][j]) << i << ", " << j;
  }
}

TEST(Filters, ExponentialsAreWithinTwoUnitsInTheLastPlace) {
  std::vector<float> logits;
  for (float x = 0; x > -86; x -= 0.0037f) logits.push_back(x);
  std::vector<float> weights(logits.size());
  exponentials(logits, 0, 1, weights);
  for (size_t i = 0; i < logits.size(); ++i) {
    const double exact = std::exp(static_cast<double>(logits[i]));
    EXPECT_NEAR(weights[i] / exact, 1, 2 * 1.2e-7) << logits[i];
  }
  const std::vector<float> ends = {-INFINITY, -1000, 0};
  std::vector<float> out(3);
  exponentials(ends, 0, 1, out);
  EXPECT_EQ(out, (std::vector<float>{0, 0, 1}));
}

TEST(Sampler, GreedyTakesTheLowestOfEqualLogits) {
  Sampler sampler(plain(0));
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 5, 5, 2}).id, 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{-7, -INFINITY, -7}).id, 0);
}

TEST(Sampler, SameSeedSameTokensAndOtherSeedOthers) {
  const auto logits = random_logits(1000, 1);
  const auto run = [&](uint64_t seed) {
    SamplingParams params = plain();
    params.seed = seed;
    Sampler sampler(params);
    std::vector<TokenId> ids;
    for (int i = 0; i < 64; ++i) ids.push_back(sampler.sample(logits).id);
    return ids;
  };
  EXPECT_EQ(run(7), run(7));
  EXPECT_NE(run(7), run(8));
}

// Chi-square with 9 degrees of freedom exceeds 45 with probability below 1e-6.
TEST(Sampler, FrequenciesFollowTheSoftmaxAtEveryTemperature) {
  const auto logits = random_logits(10, 2, 1);
  constexpr int kDraws = 50'000;
  for (const double temperature : {0.5, 1.0, 2.0}) {
    std::vector<double> p;
    double sum = 0;
    for (const float x : logits) sum += p.emplace_back(std::exp(x / temperature));
    auto counts = draw_many(plain(temperature), logits, kDraws);
    double chi_square = 0;
    for (size_t i = 0; i < p.size(); ++i) {
      const double expected = kDraws * p[i] / sum;
      chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    EXPECT_LT(chi_square, 45) << "temperature " << temperature;
  }
}

// What transformers keeps, by sorting everything: top-k, then top-p of what is left, then min-p.
std::set<TokenId> reference_support(const std::vector<float>& logits, const SamplingParams& params) {
  std::vector<std::pair<double, TokenId>> p;
  for (size_t i = 0; i < logits.size(); ++i) p.push_back({-std::exp(logits[i] / params.temperature), i});
  std::sort(p.begin(), p.end());
  if (params.top_k > 0 && params.top_k < static_cast<int64_t>(p.size())) p.resize(params.top_k);
  double total = 0, head = 0;
  for (const auto& [weight, id] : p) total -= weight;
  std::set<TokenId> kept;
  for (const auto& [weight, id] : p) {
    if (head < params.top_p * total && weight <= params.min_p * p[0].first) kept.insert(id);
    head -= weight;
  }
  return kept;
}

TEST(Sampler, DrawsAllThatTheCutsKeepAndNothingElse) {
  const auto logits = random_logits(40, 3, 1.5);
  for (const int64_t top_k : {0, 1, 5, 39, 100})
    for (const double top_p : {0.05, 0.5, 0.9, 1.0})
      for (const double min_p : {0.0, 0.1, 1.0}) {
        SamplingParams params = plain(0.8);
        params.top_k = top_k, params.top_p = top_p, params.min_p = min_p;
        std::set<TokenId> drawn;
        for (const auto& [id, count] : draw_many(params, logits, 6000)) drawn.insert(id);
        const auto kept = reference_support(logits, params);
        for (const TokenId id : drawn) EXPECT_TRUE(kept.contains(id)) << top_k << " " << top_p << " " << min_p;
        if (kept.size() <= 10) {
          EXPECT_EQ(drawn, kept) << top_k << " " << top_p << " " << min_p;
        }
      }
}

TEST(Sampler, TopPKeepsTheTokenThatReachesTheShare) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  SamplingParams params = plain();
  params.top_p = 0.6;
  const auto counts = draw_many(params, logits, 4000);
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_NEAR(counts.at(0) / 4000.0, 0.5 / 0.8, 0.03);
}

// Many small weights that top-p alone may ignore count in its share once top-k is given.
TEST(Sampler, TopPIsAShareOfAllThatTopKKept) {
  std::vector<float> logits(40, std::log(0.0099f));
  logits[0] = 0, logits[1] = std::log(0.5f);
  SamplingParams params = plain();
  params.top_k = 40, params.top_p = 0.6;
  EXPECT_EQ(draw_many(params, logits, 300).size(), 2u);
}

TEST(Sampler, RepetitionPenaltyDividesPositiveAndMultipliesNegativeLogits) {
  SamplingParams params = plain(0);
  params.repetition_penalty = 2;
  Sampler sampler(params);
  sampler.observe(1);
  const std::vector<float> positive = {4, 6, 1};  // 6 / 2 < 4
  EXPECT_EQ(sampler.sample(positive).id, 0);
  EXPECT_EQ(sampler.sample(positive).id, 1);  // 0 was counted: 2 < 3
  Sampler negative(params);
  negative.observe(0);
  EXPECT_EQ(negative.sample(std::vector<float>{-1, -1.5}).id, 1);  // -2 < -1.5
}

TEST(Sampler, LogprobsAreOfTheModelsOwnDistribution) {
  const auto logits = random_logits(50, 4);
  SamplingParams params = plain(0.3);
  params.top_k = 2, params.repetition_penalty = 3, params.logprobs = 50;
  Sampler sampler(params);
  for (TokenId id = 0; id < 50; ++id) sampler.observe(id);
  const Sample sample = sampler.sample(logits);
  double sum = 0;
  ASSERT_EQ(sample.top.size(), 50u);
  for (size_t i = 0; i < sample.top.size(); ++i) {
    sum += std::exp(sample.top[i].logprob);
    if (i > 0) {
      EXPECT_LE(sample.top[i].logprob, sample.top[i - 1].logprob);
    }
    if (sample.top[i].id == sample.id) {
      EXPECT_DOUBLE_EQ(sample.logprob, sample.top[i].logprob);
    }
  }
  EXPECT_NEAR(sum, 1, 1e-9);
  EXPECT_NEAR(sample.top[0].logprob - sample.top[1].logprob, logits[sample.top[0].id] - logits[sample.top[1].id], 1e-6);
}

// Of 3 degrees of freedom chi-square exceeds 36 with probability below 1e-7.
TEST(Sampler, PenaltiesBiasAndMaskChangeTheDistributionAsWritten) {
  SamplingParams params = plain(2);
  params.repetition_penalty = 1.5, params.frequency_penalty = 0.25, params.presence_penalty = 0.5;
  params.logit_bias = {{2, 1.5}, {5, -INFINITY}};
  const std::vector<float> logits = {3, -1, 0.5, 2, 9, 9};
  const std::vector<uint64_t> mask = {0b101111};  // not 4; 5 is excluded by its bias
  std::vector<double> expected = {3 / 1.5, -1 * 1.5 - 0.5 - 3 * 0.25, 2, 2};
  double sum = 0;
  for (double& x : expected) sum += x = std::exp(x / 2);
  constexpr int kDraws = 20'000;
  std::map<TokenId, int> counts;
  for (int i = 0; i < kDraws; ++i) {
    params.seed = static_cast<uint64_t>(i);
    Sampler sampler(params);
    sampler.observe(0);
    for (int n = 0; n < 3; ++n) sampler.accept(1);
    ++counts[sampler.sample(logits, mask).id];
    if (i == 0) {
      Sampler again(params);
      again.observe(0);
      for (int n = 0; n < 3; ++n) again.accept(1);
      const auto p = again.distribution(logits, mask);
      for (size_t id = 0; id < 4; ++id) EXPECT_NEAR(p[id], expected[id] / sum, 1e-6) << id;
      EXPECT_EQ(p[4] + p[5], 0);
    }
  }
  EXPECT_EQ(counts.count(4) + counts.count(5), 0u);
  double chi_square = 0;
  for (size_t id = 0; id < 4; ++id) {
    const double mean = kDraws * expected[id] / sum;
    chi_square += (counts[static_cast<TokenId>(id)] - mean) * (counts[static_cast<TokenId>(id)] - mean) / mean;
  }
  EXPECT_LT(chi_square, 36);
}

// By sorting everything: those whose information is nearest to the entropy, until the share is reached.
TEST(Sampler, TypicalKeepsWhatIsNearestToTheEntropy) {
  for (const double share : {0.2, 0.5, 0.9}) {
    const auto logits = random_logits(60, 5, 2);
    SamplingParams params = plain();
    params.typical_p = share;
    double sum = 0, entropy = 0, mass = 0;
    for (const float x : logits) sum += std::exp(x);
    std::vector<std::pair<double, TokenId>> order;
    for (const float x : logits) entropy -= std::exp(x) / sum * std::log(std::exp(x) / sum);
    for (size_t i = 0; i < logits.size(); ++i)
      order.push_back({std::abs(-std::log(std::exp(logits[i]) / sum) - entropy), static_cast<TokenId>(i)});
    std::sort(order.begin(), order.end());
    std::set<TokenId> expected, kept;
    for (const auto& [distance, id] : order) {
      if (mass < share) expected.insert(id);
      mass += std::exp(logits[static_cast<size_t>(id)]) / sum;
    }
    Sampler sampler(params);
    const auto p = sampler.distribution(logits);
    for (size_t i = 0; i < p.size(); ++i)
      if (p[i] > 0) kept.insert(static_cast<TokenId>(i));
    EXPECT_EQ(kept, expected) << share;
    EXPECT_LT(kept.size(), 60u);
  }
}

// A whole vocabulary, flat enough for every bucket and selection to be used, against sorting it.
TEST(Sampler, CutsOfAWholeVocabularyEqualSorting) {
  for (const float spread : {0.0f, 0.01f, 1.0f, 4.0f}) {
    const auto logits = random_logits(202'048, 6, spread);
    for (const auto& [top_k, top_p] : {std::pair<int64_t, double>{0, 0.9}, {1000, 1.0}, {5000, 0.5}, {0, 1e-9}}) {
      SamplingParams params = plain(0.7);
      params.top_k = top_k, params.top_p = top_p;
      Sampler sampler(params);
      const auto p = sampler.distribution(logits);
      const auto kept = static_cast<size_t>(std::count_if(p.begin(), p.end(), [](float x) { return x > 0; }));
      std::vector<uint32_t> order(logits.size());
      for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
      std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return logits[a] > logits[b]; });
      if (top_k > 0) order.resize(static_cast<size_t>(top_k));
      double total = 0, mass = 0;
      std::vector<double> weights;
      for (const uint32_t id : order) total += weights.emplace_back(std::exp((logits[id] - logits[order[0]]) / 0.7));
      size_t expected = 0;
      while (expected < order.size() && mass < top_p * total) mass += weights[expected++];
      EXPECT_NEAR(static_cast<double>(kept), static_cast<double>(expected), 2 + 2e-5 * static_cast<double>(expected))
          << spread << " " << top_k << " " << top_p;
      size_t in_front = 0;  // what is kept are the first of the order
      while (in_front < order.size() && p[order[in_front]] > 0) ++in_front;
      if (top_p < 1 || top_k > 0) {
        EXPECT_NEAR(static_cast<double>(in_front), static_cast<double>(kept), 2)
            << spread << " " << top_k << " " << top_p;
      }
    }
  }
}

TEST(Sampler, ChoicesDependOnSeedAndStepAlone) {
  const auto logits = random_logits(500, 8);
  SamplingParams params = plain();
  params.seed = 11;
  Sampler whole(params), forced(params);
  std::vector<TokenId> ids;
  for (int i = 0; i < 20; ++i) ids.push_back(whole.sample(logits).id);
  for (int i = 0; i < 10; ++i) forced.accept(3);
  Sampler copy = forced;
  EXPECT_EQ(forced.sample(logits).id, ids[10]);
  EXPECT_EQ(copy.sample(logits).id, ids[10]);
  CounterRng rng(11);
  EXPECT_EQ(rng.uniform(), CounterRng::at(11, 0));
  EXPECT_EQ(rng.uniform(), CounterRng::at(11, 1));
}

TEST(Sampler, AMaskHoldsForGreedyAndForSampling) {
  const std::vector<uint64_t> mask = {0b0100, 0};
  std::vector<float> logits(70, 1);
  logits[2] = -50;
  for (const double temperature : {0.0, 0.5}) {
    Sampler sampler(plain(temperature));
    EXPECT_EQ(sampler.sample(logits, mask).id, 2);
    try {
      sampler.sample(logits, std::vector<uint64_t>{0, 0});
      ADD_FAILURE() << "an empty mask is an error";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("the grammar"), std::string::npos) << error.what();
    }
  }
}

TEST(Sampler, RefusesLogitsThatAreNotNumbers) {
  for (const double temperature : {0.0, 1.0}) {
    Sampler sampler(plain(temperature));
    EXPECT_THROW(sampler.sample(std::vector<float>{0, NAN, 1}), Error);
    EXPECT_THROW(sampler.sample(std::vector<float>{NAN, 0}), Error);
    EXPECT_THROW(sampler.sample(std::vector<float>{0, INFINITY}), Error);
    EXPECT_THROW(sampler.sample(std::vector<float>{-INFINITY, -INFINITY}), Error);
    EXPECT_EQ(sampler.sample(std::vector<float>{-INFINITY, 3}).id, 1);
  }
}

TEST(Sampler, RefusesParametersOutOfRange) {
  const auto bad = [](auto set) {
    SamplingParams params;
    set(params);
    EXPECT_THROW(validate(params), UsageError);
  };
  bad([](auto& p) { p.temperature = -1; });
  bad([](auto& p) { p.temperature = 1e-310; });
  bad([](auto& p) { p.repetition_penalty = 1e-300; });
  bad([](auto& p) { p.temperature = NAN; });
  bad([](auto& p) { p.top_p = 0; });
  bad([](auto& p) { p.top_p = 1.5; });
  bad([](auto& p) { p.top_k = -1; });
  bad([](auto& p) { p.min_p = 2; });
  bad([](auto& p) { p.repetition_penalty = 0; });
  bad([](auto& p) { p.logprobs = 1000; });
  bad([](auto& p) { p.typical_p = 0; });
  bad([](auto& p) { p.frequency_penalty = NAN; });
  bad([](auto& p) { p.presence_penalty = 1e9; });
  bad([](auto& p) { p.logit_bias[-1] = 1; });
  bad([](auto& p) { p.logit_bias[1] = INFINITY; });
  EXPECT_NO_THROW(validate(SamplingParams{}));
}

}  // namespace
}  // namespace puna::engine
