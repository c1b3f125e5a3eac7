#include "quant/scale_search.h"

#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>

namespace puna::quant {
namespace {

constexpr float kTiny = 1e-30f;  // groups below are zeros: their scales would be denormal
constexpr float kMaxFp8 = 448;
constexpr int kLanes = 8;
constexpr int kRefinements = 2;

// Adding and taking away 1.5 * 2^23 rounds a float of less than 2^22 to the nearest integer, ties to even.
inline float rounded(float x) { return (x + 12582912.0f) - 12582912.0f; }

/// Sums of a fit: the error, and what the best scale for these integers is made of.
struct Sums {
  float error = 0, xd = 0, dd = 0;
};

/// `step(x)` gives the stored value in units of the scale. Eight partial sums, always added in the same order.
template <class Step>
Sums sums_of(const float* x, const float* weight, int64_t count, float scale, Step step) {
  float error[kLanes] = {}, xd[kLanes] = {}, dd[kLanes] = {};
  const auto add = [&](int lane, int64_t i) {
    const float d = step(x[i]), e = d * scale - x[i], w = weight[i];
    error[lane] += w * e * e;
    xd[lane] += w * x[i] * d;
    dd[lane] += w * d * d;
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) add(lane, i + lane);
  for (; i < count; ++i) add(static_cast<int>(i % kLanes), i);
  Sums sums;
  for (int lane = 0; lane < kLanes; ++lane) sums.error += error[lane], sums.xd += xd[lane], sums.dd += dd[lane];
  return sums;
}

Sums int_sums(const float* x, const float* weight, int64_t count, const Fit& fit, const IntRange& range) {
  const float inverse = 1 / fit.scale;
  const auto low = static_cast<float>(range.low - fit.zero), high = static_cast<float>(range.high - fit.zero);
  return sums_of(x, weight, count, fit.scale,
                 [=](float v) { return rounded(std::min(std::max(v * inverse, low), high)); });
}

Sums fp8_sums(const float* x, const float* weight, int64_t count, const Fit& fit) {
  const float inverse = 1 / fit.scale;
  return sums_of(x, weight, count, fit.scale, [=](float v) { return round_fp8(v * inverse); });
}

/// Keeps the best of the candidates that it is shown.
template <class SumsOf>
class Search {
 public:
  Search(DType scale_dtype, SumsOf sums_of) : scale_dtype_(scale_dtype), sums_of_(sums_of) {}

  void try_scale(float scale, int zero) {
    Fit fit{std::max(rounded_to(scale_dtype_, scale), kTiny), zero, 0};
    const Sums sums = sums_of_(fit);
    fit.error = sums.error;
    if (tried_ && !(fit.error < best_.error)) return;
    tried_ = true, best_ = fit, sums_ = sums;
  }

  /// Nothing can be better, as with weights that were quantised before.
  bool exact() const { return tried_ && best_.error == 0; }

  /// The integers of the best fit kept, their best scale; then again.
  Fit refined() {
    for (int i = 0; i < kRefinements && sums_.dd > 0 && sums_.xd > 0; ++i) {
      const float scale = sums_.xd / sums_.dd;
      if (std::isfinite(scale) && scale > kTiny) try_scale(scale, best_.zero);
    }
    return best_;
  }

 private:
  DType scale_dtype_;
  SumsOf sums_of_;
  bool tried_ = false;
  Fit best_;
  Sums sums_;
};

}  // namespace

float rounded_to(DType dtype, float value) {
  if (dtype == DType::F32) return value;
  if (dtype == DType::F16) return static_cast<float>(c10::Half(value));
  const auto bits = std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000u);
}

Fit fit_int(const float* x, const float* weight, int64_t count, const IntRange& range, DType scale_dtype) {
  const auto [low, high] = std::minmax_element(x, x + count);
  const float least = std::min(*low, 0.0f), most = std::max(*high, 0.0f), largest = std::max(-least, most);
  if (!(largest > kTiny)) return {};
  Search search(scale_dtype, [&](const Fit& fit) { return int_sums(x, weight, count, fit, range); });
  // With 4 or 8 levels the best scale cuts off more, and either integer beside the exact zero may be better.
  const bool few_levels = range.high - range.low < 15;
  const int steps = few_levels ? 35 : 20;
  if (range.symmetric && -least >= most) search.try_scale(least / static_cast<float>(range.low), 0);
  for (int i = 0; i <= steps && !search.exact(); ++i) {
    const float ratio = 1 - 0.02f * static_cast<float>(i);
    search.try_scale(ratio * largest / static_cast<float>(range.high), 0);
    if (range.symmetric) continue;
    const float scale = ratio * (most - least) / static_cast<float>(range.high - range.low);
    if (!(scale > kTiny)) continue;
    const float exact = static_cast<float>(range.low) - ratio * least / scale, zero = rounded(exact);
    const auto try_zero = [&](float z) {
      search.try_scale(scale, std::clamp(static_cast<int>(z), range.low, range.high));
    };
    try_zero(zero);
    if (few_levels) try_zero(zero < exact ? zero + 1 : zero - 1);
  }
  return search.refined();
}

Fit fit_fp8(const float* x, const float* weight, int64_t count, DType scale_dtype) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(x[i]));
  if (!(largest > kTiny)) return {};
  Search search(scale_dtype, [&](const Fit& fit) { return fp8_sums(x, weight, count, fit); });
  // A factor of two changes little in a floating format: one octave shows every position of the values in the grid.
  constexpr int kSteps = 16;
  for (int i = -2; i < kSteps; ++i)
    search.try_scale(largest / kMaxFp8 * std::exp2(static_cast<float>(i) / static_cast<float>(kSteps)), 0);
  return search.refined();
}

int quantise_int(float x, const Fit& fit, const IntRange& range) {
  const auto low = static_cast<float>(range.low - fit.zero), high = static_cast<float>(range.high - fit.zero);
  return static_cast<int>(rounded(std::min(std::max(x * (1 / fit.scale), low), high))) + fit.zero;
}

float round_fp8(float x) {
  const float v = std::min(std::max(x, -kMaxFp8), kMaxFp8);
  const auto bits = std::bit_cast<uint32_t>(v);
  const float normal = std::bit_cast<float>((bits + 0x7FFFF + (bits >> 20 & 1)) & ~0xFFFFFu);
  const float subnormal = (v + 24576.0f) - 24576.0f;  // multiples of 2^-9
  return std::abs(v) < 0x1p-6f ? subnormal : normal;
}

uint8_t fp8_bits(float rounded) {
  const auto bits = std::bit_cast<uint32_t>(rounded);
  const uint32_t sign = bits >> 24 & 0x80, magnitude = bits & 0x7FFFFFFF;
  if (std::abs(rounded) < 0x1p-6f) return static_cast<uint8_t>(sign | static_cast<uint32_t>(std::abs(rounded) * 512));
  return static_cast<uint8_t>(sign | ((magnitude >> 20) - (120u << 3)));
}

}  // namespace puna::quant
