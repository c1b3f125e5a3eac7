#include "engine/filters.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"

namespace puna::engine {
namespace {

// Cody and Waite's reduction, and the polynomial of Cephes' expf. Plain arithmetic, so that compilers vectorise it and
// every machine gives the same bits.
float exp_not_positive(float x) {
  constexpr float kLog2E = 1.44269504088896341f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  x = x < -87.0f ? -87.0f : x;
  const float n = (x * kLog2E + kRound) - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

// Floats of at least 0 are ordered as their bits; the upper ones number the buckets.
constexpr int kBucketShift = 19;
constexpr size_t kBuckets = size_t{1} << (31 - kBucketShift);

size_t bucket_of(float key) { return std::bit_cast<uint32_t>(key) >> kBucketShift; }

struct Entry {
  float key;
  uint32_t id;
  float mass;
};

bool before(const Entry& a, const Entry& b) { return a.key != b.key ? a.key > b.key : a.id < b.id; }

// The first of the entries, in order, that is dropped once those before it reach `target`: halves the range, so that
// the time is linear. entries.size() when all are kept.
size_t cut_of(std::vector<Entry>& entries, double target) {
  size_t begin = 0, end = entries.size();
  while (end - begin > 1) {
    const size_t middle = begin + (end - begin) / 2;
    std::nth_element(entries.begin() + static_cast<int64_t>(begin), entries.begin() + static_cast<int64_t>(middle),
                     entries.begin() + static_cast<int64_t>(end), before);
    double mass = 0;
    for (size_t i = begin; i < middle; ++i) mass += entries[i].mass;
    if (mass >= target)
      end = middle;
    else
      target -= mass, begin = middle;
  }
  return target > 0 ? end : begin;
}

// Keeps the ids of greatest key until their masses reach `target`; at least one. Ids of mass 0 are not there.
template <typename Key, typename Mass>
void keep_greatest(std::span<float> weights, double target, const Key& key, const Mass& mass) {
  std::vector<double> masses(kBuckets, 0);
  for (size_t i = 0; i < weights.size(); ++i)
    if (weights[i] > 0) masses[bucket_of(key(i))] += mass(i);
  size_t bucket = kBuckets - 1;
  while (bucket > 0 && masses[bucket] < target) target -= masses[bucket--];
  std::vector<Entry> entries;
  for (size_t i = 0; i < weights.size(); ++i)
    if (weights[i] > 0 && bucket_of(key(i)) == bucket)
      entries.push_back({key(i), static_cast<uint32_t>(i), static_cast<float>(mass(i))});
  const size_t kept = std::max<size_t>(cut_of(entries, target), 1);
  std::vector<uint32_t> dropped;
  for (size_t i = kept; i < entries.size(); ++i) dropped.push_back(entries[i].id);
  for (size_t i = 0; i < weights.size(); ++i)
    if (weights[i] > 0 && bucket_of(key(i)) < bucket) weights[i] = 0;
  for (const uint32_t id : dropped) weights[id] = 0;
}

}  // namespace

void exponentials(std::span<const float> logits, float max_logit, float temperature, std::span<float> weights) {
  PUNA_CHECK(weights.size() == logits.size(), "{} weights, {} logits", weights.size(), logits.size());
  const float scale = 1 / temperature;
  for (size_t i = 0; i < logits.size(); ++i) {
    const float x = (logits[i] - max_logit) * scale;
    const float weight = exp_not_positive(x);
    weights[i] = x < -87.0f ? 0.0f : weight;
  }
}

double sum_of(std::span<const float> weights) {
  double sum = 0;
  for (const float weight : weights) sum += weight;
  return sum;
}

double keep_top_k(std::span<float> weights, int64_t count) {
  const auto positive = std::count_if(weights.begin(), weights.end(), [](float weight) { return weight > 0; });
  if (count < positive)
    keep_greatest(
        weights, static_cast<double>(count), [&](size_t i) { return weights[i]; }, [](size_t) { return 1.0; });
  return sum_of(weights);
}

double keep_top_p(std::span<float> weights, double total, double share) {
  keep_greatest(
      weights, share * total, [&](size_t i) { return weights[i]; }, [&](size_t i) { return weights[i]; });
  return sum_of(weights);
}

double keep_min_p(std::span<float> weights, double share) {
  const float least = *std::max_element(weights.begin(), weights.end()) * static_cast<float>(share);
  for (float& weight : weights) weight = weight < least ? 0 : weight;
  return sum_of(weights);
}

double keep_typical(std::span<float> weights, double total, double share) {
  double entropy = 0;
  std::vector<float> information(weights.size(), 0);
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0) continue;
    information[i] = static_cast<float>(-std::log(weights[i] / total));
    entropy += weights[i] / total * information[i];
  }
  // The nearest has the greatest key; subtraction of the bits turns the order of distances around.
  const auto key = [&](size_t i) {
    const float distance = std::abs(information[i] - static_cast<float>(entropy));
    constexpr uint32_t kInfinity = 0x7F800000;
    return std::bit_cast<float>(kInfinity - std::bit_cast<uint32_t>(distance));
  };
  keep_greatest(weights, share * total, key, [&](size_t i) { return weights[i]; });
  return sum_of(weights);
}

}  // namespace puna::engine
