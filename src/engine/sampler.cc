#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace puna::engine {
namespace {

void require(bool ok, std::string_view name, double value, std::string_view range) {
  if (!ok) throw UsageError(name, fmt::format("is {}; it must be {}", value, range));
}

// Greatest logit and its lowest index; NaN and +inf are refused in the same pass.
size_t checked_argmax(std::span<const float> logits) {
  PUNA_CHECK(!logits.empty(), "no logits");
  size_t best = 0;
  bool finite = true;
  for (size_t i = 0; i < logits.size(); ++i) {
    finite &= logits[i] < std::numeric_limits<float>::infinity();  // false for NaN
    if (logits[i] > logits[best]) best = i;
  }
  if (!finite) {
    const auto bad = std::find_if(logits.begin(), logits.end(), [](float x) { return !(x < INFINITY); });
    fail("sampler", "the logit of token {} is {}; are the weights of the checkpoint intact?", bad - logits.begin(),
         *bad);
  }
  if (std::isinf(logits[best])) fail("sampler", "all logits are -inf; are the weights of the checkpoint intact?");
  return best;
}

}  // namespace

void validate(const SamplingParams& p) {
  require(p.temperature == 0 || (p.temperature >= 1e-3 && p.temperature <= 100), "--temperature", p.temperature,
          "0 (greedy), or from 0.001 to 100");
  require(p.top_p > 0 && p.top_p <= 1, "--top-p", p.top_p, "above 0 and at most 1");
  require(p.top_k >= 0, "--top-k", static_cast<double>(p.top_k), "0 (all) or more");
  require(p.min_p >= 0 && p.min_p <= 1, "--min-p", p.min_p, "from 0 to 1");
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

double CounterRng::uniform() {
  const uint32_t counter[4] = {static_cast<uint32_t>(draws_), static_cast<uint32_t>(draws_ >> 32), 0, 0};
  const uint32_t key[2] = {static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32)};
  uint32_t out[4];
  philox(counter, key, out);
  ++draws_;
  return static_cast<double>((uint64_t{out[1]} << 32 | out[0]) >> 11) * 0x1p-53;
}

double log_sum_exp(std::span<const float> logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - max);
  return max + std::log(sum);
}

Sampler::Sampler(const SamplingParams& params) : params_(params), rng_(params.seed) { validate(params); }

Sample Sampler::sample(std::span<const float> logits) {
  Sample result{0, std::numeric_limits<double>::quiet_NaN(), {}};
  size_t best = checked_argmax(logits);
  std::span<const float> penalised = logits;
  if (params_.repetition_penalty != 1 && !seen_.empty()) {
    penalised_.assign(logits.begin(), logits.end());
    const auto penalty = static_cast<float>(params_.repetition_penalty);
    for (const TokenId id : seen_)
      if (static_cast<size_t>(id) < penalised_.size())
        penalised_[id] = penalised_[id] > 0 ? penalised_[id] / penalty : penalised_[id] * penalty;
    penalised = penalised_;
    best = checked_argmax(penalised);
  }
  result.id = params_.temperature == 0 ? static_cast<TokenId>(best) : draw(penalised, penalised[best]);
  observe(result.id);
  if (params_.logprobs >= 0) report(logits, result);
  return result;
}

TokenId Sampler::draw(std::span<const float> logits, float max_logit) {
  const auto top_k = static_cast<size_t>(params_.top_k);
  // Tokens below (1 - top_p) / V together weigh less than 1 - top_p, so top-p alone would drop them all: no need to
  // sort them. Top-k counts its share among what it keeps, so there nothing may go first.
  const double nucleus = params_.top_p < 1 ? (1 - params_.top_p) / static_cast<double>(logits.size()) : 0;
  const double cut = top_k > 0 ? 0 : std::max(nucleus, params_.min_p);
  candidates_.clear();
  double total = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double weight = std::exp((static_cast<double>(logits[i]) - max_logit) / params_.temperature);
    total += weight;
    if (weight > 0 && weight >= cut) candidates_.push_back({weight, static_cast<TokenId>(i)});
  }
  if (top_k > 0 || params_.top_p < 1) keep_most_probable(total);
  if (params_.min_p > 0) std::erase_if(candidates_, [&](const Candidate& c) { return c.weight < params_.min_p; });
  PUNA_CHECK(!candidates_.empty(), "no token is left to draw from");
  double left = 0;
  for (const Candidate& c : candidates_) left += c.weight;
  left *= rng_.uniform();
  for (const Candidate& c : candidates_)
    if ((left -= c.weight) < 0) return c.id;
  return candidates_.back().id;  // rounding left a crumb
}

// Top-p is a share of what top-k kept, as in transformers; without top-k, of everything.
void Sampler::keep_most_probable(double total) {
  const auto more = [](const Candidate& a, const Candidate& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
  };
  const auto top_k = static_cast<size_t>(params_.top_k);
  if (top_k > 0 && top_k < candidates_.size()) {
    std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<int64_t>(top_k), candidates_.end(), more);
    candidates_.resize(top_k);
  }
  std::sort(candidates_.begin(), candidates_.end(), more);
  if (params_.top_p == 1) return;
  if (top_k > 0) {
    total = 0;
    for (const Candidate& c : candidates_) total += c.weight;
  }
  double sum = 0;
  size_t kept = 0;
  while (kept < candidates_.size() && sum < params_.top_p * total) sum += candidates_[kept++].weight;
  candidates_.resize(std::max<size_t>(kept, 1));
}

void Sampler::report(std::span<const float> logits, Sample& sample) const {
  const double normaliser = log_sum_exp(logits);
  sample.logprob = logits[static_cast<size_t>(sample.id)] - normaliser;
  const size_t count = std::min<size_t>(static_cast<size_t>(params_.logprobs), logits.size());
  std::vector<TokenId> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<TokenId>(i);
  std::partial_sort(order.begin(), order.begin() + static_cast<int64_t>(count), order.end(),
                    [&](TokenId a, TokenId b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  for (size_t i = 0; i < count; ++i) sample.top.push_back({order[i], logits[order[i]] - normaliser});
}

}  // namespace puna::engine
