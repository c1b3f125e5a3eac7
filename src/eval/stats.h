// src/eval: tasks from local files, graded answers and likelihoods with their confidence intervals.
// It measures one loaded model; tables, pictures and exit statuses are src/cli, generation is src/engine.
#pragma once

#include <cstdint>
#include <span>

namespace puna::eval {

/// A 95 % confidence interval.
struct Interval {
  double low = 0;
  double high = 0;
};

/// Wilson's score interval of a proportion (Wilson 1927): `right` of `total`. Without any item it is [0, 1].
Interval wilson(int64_t right, int64_t total);

inline constexpr int kResamples = 1000;

/// Percentile bootstrap of sum(numerators) / sum(denominators): items are drawn with replacement, as many as there
/// are, kResamples times, and the 2.5th and 97.5th percentiles kept. The same values and seed give the same interval.
/// Needs at least one item and positive denominators.
Interval bootstrap_ratio(std::span<const double> numerators, std::span<const double> denominators, uint64_t seed = 0);

}  // namespace puna::eval
