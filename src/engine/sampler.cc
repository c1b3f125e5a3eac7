#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "engine/filters.h"

namespace puna::engine {
namespace {

void require(bool ok, std::string_view name, double value, std::string_view range) {
  if (!ok) throw UsageError(name, fmt::format("is {}; it must be {}", value, range));
}

// The lowest id of the greatest logit; NaN and +inf are refused in the same pass.
size_t checked_argmax(std::span<const float> logits) {
  PUNA_CHECK(!logits.empty(), "no logits");
  float max = -std::numeric_limits<float>::infinity();
  bool finite = true;
  for (const float x : logits) {
    finite &= x < std::numeric_limits<float>::infinity();  // false for NaN
    max = x > max ? x : max;
  }
  if (!finite) {
    const auto bad = std::find_if(logits.begin(), logits.end(), [](float x) { return !(x < INFINITY); });
    fail("sampler", "the logit of token {} is {}; are the weights of the checkpoint intact?", bad - logits.begin(),
         *bad);
  }
  return static_cast<size_t>(std::find(logits.begin(), logits.end(), max) - logits.begin());
}

}  // namespace

void validate(const SamplingParams& p) {
  require(p.temperature == 0 || (p.temperature >= 1e-3 && p.temperature <= 100), "--temperature", p.temperature,
          "0 (greedy), or from 0.001 to 100");
  require(p.top_p > 0 && p.top_p <= 1, "--top-p", p.top_p, "above 0 and at most 1");
  require(p.top_k >= 0, "--top-k", static_cast<double>(p.top_k), "0 (all) or more");
  require(p.min_p >= 0 && p.min_p <= 1, "--min-p", p.min_p, "from 0 to 1");
  require(p.typical_p > 0 && p.typical_p <= 1, "--typical-p", p.typical_p, "above 0 and at most 1");
  require(std::abs(p.frequency_penalty) <= 100, "--frequency-penalty", p.frequency_penalty, "from -100 to 100");
  require(std::abs(p.presence_penalty) <= 100, "--presence-penalty", p.presence_penalty, "from -100 to 100");
  for (const auto& [id, bias] : p.logit_bias) {
    require(id >= 0, "--logit-bias", id, "a token id, 0 or more");
    require(bias <= 100 && (bias >= -100 || std::isinf(bias)), "--logit-bias", bias, "from -100 to 100, or -inf");
  }
  require(p.repetition_penalty >= 0.01 && p.repetition_penalty <= 100, "--repetition-penalty", p.repetition_penalty,
          "from 0.01 to 100");
  require(p.logprobs >= -1 && p.logprobs <= 100, "--logprobs", p.logprobs, "from 0 to 100");
}

void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]}, k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; ++round, k0 += kWeyl0, k1 += kWeyl1) {
    const uint64_t p0 = kMultiplier0 * c[0], p1 = kMultiplier1 * c[2];
    const uint32_t next[4] = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
                              static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    std::copy(next, next + 4, c);
  }
  std::copy(c, c + 4, out);
}

double CounterRng::at(uint64_t seed, uint64_t draw) {
  const uint32_t counter[4] = {static_cast<uint32_t>(draw), static_cast<uint32_t>(draw >> 32), 0, 0};
  const uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  uint32_t out[4];
  philox(counter, key, out);
  return static_cast<double>((uint64_t{out[1]} << 32 | out[0]) >> 11) * 0x1p-53;
}

double log_sum_exp(std::span<const float> logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - max);
  return max + std::log(sum);
}

Sampler::Sampler(const SamplingParams& params) : params_(params) { validate(params); }

void Sampler::observe(TokenId id) { seen_.try_emplace(id, 0); }

void Sampler::accept(TokenId id) {
  ++seen_[id];
  ++step_;
}

Sample Sampler::sample(std::span<const float> logits, std::span<const uint64_t> mask) {
  Sample result{0, std::numeric_limits<double>::quiet_NaN(), {}};
  const size_t best = adjust(logits, mask);
  result.id = params_.temperature == 0 ? static_cast<TokenId>(best) : draw(weigh(logits_[best]));
  accept(result.id);
  if (params_.logprobs >= 0) report(logits, result);
  return result;
}

std::span<const float> Sampler::distribution(std::span<const float> logits, std::span<const uint64_t> mask) {
  const size_t best = adjust(logits, mask);
  if (params_.temperature == 0) {
    weights_.assign(logits.size(), 0);
    weights_[best] = 1;
    return weights_;
  }
  const auto total = static_cast<float>(weigh(logits_[best]));
  for (float& weight : weights_) weight /= total;
  return weights_;
}

size_t Sampler::adjust(std::span<const float> logits, std::span<const uint64_t> mask) {
  const size_t raw = checked_argmax(logits);
  if (std::isinf(logits[raw])) fail("sampler", "all logits are -inf; are the weights of the checkpoint intact?");
  logits_.assign(logits.begin(), logits.end());
  for (const auto& [id, bias] : params_.logit_bias) {
    if (static_cast<size_t>(id) >= logits_.size())
      fail("--logit-bias", "token {} is not in the vocabulary of {} tokens", id, logits_.size());
    logits_[static_cast<size_t>(id)] += static_cast<float>(bias);
  }
  const auto repetition = static_cast<float>(params_.repetition_penalty);
  for (const auto& [id, generated] : seen_) {
    if (static_cast<size_t>(id) >= logits_.size()) continue;
    float& logit = logits_[static_cast<size_t>(id)];
    if (repetition != 1) logit = logit > 0 ? logit / repetition : logit * repetition;
    if (generated > 0)
      logit -=
          static_cast<float>(params_.frequency_penalty * static_cast<double>(generated) + params_.presence_penalty);
  }
  if (!mask.empty()) {
    PUNA_CHECK(mask.size() * 64 >= logits.size(), "a mask of {} words for {} logits", mask.size(), logits.size());
    for (size_t i = 0; i < logits_.size(); ++i)
      if (!(mask[i / 64] >> (i % 64) & 1)) logits_[i] = -std::numeric_limits<float>::infinity();
  }
  const size_t best = checked_argmax(logits_);
  if (std::isinf(logits_[best]))
    fail("sampling settings", "no token is left: {} excludes all of them",
         mask.empty() ? "the logit bias" : "the grammar, with the logit bias,");
  return best;
}

double Sampler::weigh(float max_logit) {
  weights_.resize(logits_.size());
  exponentials(logits_, max_logit, static_cast<float>(params_.temperature), weights_);
  double total = sum_of(weights_);
  if (params_.top_k > 0) total = keep_top_k(weights_, params_.top_k);
  if (params_.top_p < 1) total = keep_top_p(weights_, total, params_.top_p);
  if (params_.min_p > 0) total = keep_min_p(weights_, params_.min_p);
  if (params_.typical_p < 1) total = keep_typical(weights_, total, params_.typical_p);
  return total;
}

TokenId Sampler::draw(double total) const {
  double left = total * CounterRng::at(params_.seed, step_);
  size_t last = 0;
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (weights_[i] == 0) continue;
    if ((left -= weights_[i]) < 0) return static_cast<TokenId>(i);
    last = i;
  }
  return static_cast<TokenId>(last);  // rounding left a crumb
}

void Sampler::report(std::span<const float> logits, Sample& sample) const {
  const double normaliser = log_sum_exp(logits);
  sample.logprob = logits[static_cast<size_t>(sample.id)] - normaliser;
  const auto count = std::min<size_t>(static_cast<size_t>(params_.logprobs), logits.size());
  if (count == 0) return;
  const auto more = [&](TokenId a, TokenId b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::vector<TokenId> best;  // a heap, the least of them in front
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    if (best.size() == count) {
      if (!more(id, best.front())) continue;
      std::pop_heap(best.begin(), best.end(), more);
      best.pop_back();
    }
    best.push_back(id);
    std::push_heap(best.begin(), best.end(), more);
  }
  std::sort_heap(best.begin(), best.end(), more);
  for (const TokenId id : best) sample.top.push_back({id, logits[static_cast<size_t>(id)] - normaliser});
}

}  // namespace puna::engine
