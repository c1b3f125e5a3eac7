#include "eval/stats.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "engine/sampler.h"

namespace puna::eval {

Interval wilson(int64_t right, int64_t total) {
  PUNA_CHECK(right >= 0 && right <= total, "{} of {}", right, total);
  if (total == 0) return {0, 1};
  constexpr double z = 1.959963984540054;  // the normal distribution's 97.5th percentile
  const auto n = static_cast<double>(total);
  const double p = static_cast<double>(right) / n;
  const double centre = p + z * z / (2 * n);
  const double half = z * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  const double scale = 1 + z * z / n;
  // At the ends the formula gives exactly 0 and 1, up to rounding.
  return {right == 0 ? 0 : (centre - half) / scale, right == total ? 1 : (centre + half) / scale};
}

Interval bootstrap_ratio(std::span<const double> numerators, std::span<const double> denominators, uint64_t seed) {
  const size_t count = numerators.size();
  PUNA_CHECK(count > 0 && denominators.size() == count, "{} numerators, {} denominators", count, denominators.size());
  engine::CounterRng rng(seed);
  std::vector<double> ratios(kResamples);
  for (double& ratio : ratios) {
    double numerator = 0, denominator = 0;
    for (size_t i = 0; i < count; ++i) {
      const auto drawn = static_cast<size_t>(rng.uniform() * static_cast<double>(count));
      numerator += numerators[drawn];
      denominator += denominators[drawn];
    }
    ratio = numerator / denominator;
  }
  std::sort(ratios.begin(), ratios.end());
  constexpr size_t kLow = kResamples / 40;
  return {ratios[kLow], ratios[kResamples - 1 - kLow]};
}

}  // namespace puna::eval
