#include "arch/rope_factors.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace puna::arch {
namespace {

double wavelength(double theta, int64_t head_dim, size_t j) {
  return 2 * std::numbers::pi * std::pow(theta, 2.0 * static_cast<double>(j) / static_cast<double>(head_dim));
}

bool same_factors(const std::vector<double>& a, const std::vector<double>& b) {
  return std::ranges::equal(a, b, [](double x, double y) { return std::abs(x - y) <= 1e-5 * y; });
}

}  // namespace

std::vector<double> factors_of_scaling(const RopeScaling& s, double theta, int64_t head_dim) {
  std::vector<double> out;
  const auto original = static_cast<double>(s.original_max_position_embeddings);
  for (size_t j = 0; j < static_cast<size_t>(head_dim / 2); ++j) {
    const double length = wavelength(theta, head_dim, j);
    if (length < original / s.high_freq_factor) {
      out.push_back(1);
    } else if (length > original / s.low_freq_factor) {
      out.push_back(s.factor);
    } else {
      const double range = s.high_freq_factor - s.low_freq_factor;
      const double smooth = range > 0 ? (original / length - s.low_freq_factor) / range : 0;
      out.push_back(1 / ((1 - smooth) / s.factor + smooth));
    }
  }
  return out;
}

std::optional<RopeScaling> scaling_of_factors(const TextConfig& config) {
  const std::vector<double>& factors = config.rope_factors;
  const auto scaled = std::ranges::find_if(factors, [](double f) { return f != 1; });
  if (scaled == factors.end()) return std::nullopt;
  const double factor = factors.back();
  std::vector<RopeScaling> candidates = {{factor, 1, 1, 8192}, {factor, 1, 4, 8192}};
  // A step: any original length between the last plain and the first scaled wavelength gives the same divisors.
  const auto first = static_cast<size_t>(scaled - factors.begin());
  const double low = first ? wavelength(config.rope_theta, config.head_dim, first - 1) : 1;
  const double high = wavelength(config.rope_theta, config.head_dim, first);
  candidates.push_back({factor, 1, 1, static_cast<int64_t>(std::min(std::sqrt(low * high), 1e12))});
  for (const RopeScaling& s : candidates)
    if (s.original_max_position_embeddings > 0 &&
        same_factors(factors_of_scaling(s, config.rope_theta, config.head_dim), factors))
      return s;
  throw Error("config.json", "the rope factors of this model are no llama3 scaling, which is all this format can say");
}

}  // namespace puna::arch
