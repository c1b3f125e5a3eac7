// Cuts of a distribution, without sorting it: all tokens stay in place, and dropped ones get weight 0.
#pragma once

#include <cstdint>
#include <span>

namespace puna::engine {

/// exp((logit - max) / temperature) for each logit, in FP32, at most 2 units in the last place off; 0 for -inf.
void exponentials(std::span<const float> logits, float max_logit, float temperature, std::span<float> weights);

/// All functions below keep the lower id among equal weights, and return the sum of what is left.
double sum_of(std::span<const float> weights);
/// Keeps the `count` greatest weights.
double keep_top_k(std::span<float> weights, int64_t count);
/// Keeps the greatest weights, as few as reach `share` of `total`, at least one.
double keep_top_p(std::span<float> weights, double total, double share);
/// Drops weights below `share` of the greatest.
double keep_min_p(std::span<float> weights, double share);
/// Keeps those whose information -log(p) is nearest to the entropy, as few as reach `share` of `total` (Meister et al.
/// 2022, locally typical sampling), at least one.
double keep_typical(std::span<float> weights, double total, double share);

}  // namespace puna::engine
