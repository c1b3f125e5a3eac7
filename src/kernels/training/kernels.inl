// Included by one file per instruction set, which defines PUNA_KERNELS_NAMESPACE; no function of the standard library
// that could be emitted here and shared with files of other flags.
#include <cmath>
#include <cstdint>

#include "kernels/training/kernels.h"

namespace puna::kernels::PUNA_KERNELS_NAMESPACE {
namespace {

constexpr int64_t kLanes = 16;  // partial sums of a row

inline double exp_of(double x) { return __builtin_exp(x); }

// e^x to 2 units in the last place: Cody and Waite's reduction, then a polynomial on [-ln2/2, ln2/2]. Below -87: 0.
inline float exp_of(float x) {
  const float clamped = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
  const float shifted = clamped * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the sum's low bits are the rounded integer
  const float n = shifted - 12582912.0f;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const auto power = __builtin_bit_cast(float, (static_cast<int32_t>(n) + 127) << 23);
  return x < -87.0f ? 0.0f : p * power;
}

template <typename T>
void loss_sums(const T* logits, int64_t rows, int64_t columns, const int64_t* targets, const LossSums& sums) {
  for (int64_t r = 0; r < rows; ++r, logits += columns) {
    T high[kLanes], sum[kLanes] = {}, weighted[kLanes] = {};
    for (int64_t i = 0; i < kLanes; ++i) high[i] = logits[0];
    const int64_t whole = columns / kLanes * kLanes;
    for (int64_t c = 0; c < whole; c += kLanes)
      for (int64_t i = 0; i < kLanes; ++i) high[i] = logits[c + i] > high[i] ? logits[c + i] : high[i];
    T highest = high[0];
    for (int64_t i = 0; i < kLanes; ++i) highest = high[i] > highest ? high[i] : highest;
    for (int64_t c = whole; c < columns; ++c) highest = logits[c] > highest ? logits[c] : highest;
    for (int64_t c = 0; c < whole; c += kLanes)
      for (int64_t i = 0; i < kLanes; ++i) {
        const T below = logits[c + i] - highest, e = exp_of(below);
        sum[i] += e;
        weighted[i] += e * below;
      }
    for (int64_t c = whole; c < columns; ++c) {
      const T below = logits[c] - highest, e = exp_of(below);
      sum[c - whole] += e;
      weighted[c - whole] += e * below;
    }
    double s = 0, w = 0;
    for (int64_t i = 0; i < kLanes; ++i) {
      s += sum[i];
      w += weighted[i];
    }
    if (targets[r] >= 0 && targets[r] < columns) sums.target_logit[r] = logits[targets[r]];
    const double old = sums.highest[r], now = highest;
    if (sums.sum[r] == 0) {
      sums.highest[r] = now, sums.sum[r] = s, sums.weighted[r] = w;
    } else if (old >= now) {
      const double factor = __builtin_exp(now - old);
      sums.weighted[r] += factor * (w + s * (now - old));
      sums.sum[r] += factor * s;
    } else {
      const double factor = __builtin_exp(old - now);
      sums.weighted[r] = w + factor * (sums.weighted[r] + sums.sum[r] * (old - now));
      sums.sum[r] = s + factor * sums.sum[r];
      sums.highest[r] = now;
    }
  }
}

template <typename T>
void loss_gradients(T* logits, int64_t rows, int64_t columns, const int64_t* targets,
                    const LossGradients<T>& gradients) {
  for (int64_t r = 0; r < rows; ++r, logits += columns) {
    const T logsumexp = gradients.logsumexp[r], share = gradients.share[r], entropy = gradients.entropy[r];
    for (int64_t c = 0; c < columns; ++c) logits[c] = exp_of(logits[c] - logsumexp) * (share - entropy * logits[c]);
    if (targets[r] >= 0 && targets[r] < columns) logits[targets[r]] += gradients.target[r];
  }
}

template <typename T>
constexpr TrainingKernels<T> kKernels = {.loss_sums = loss_sums<T>, .loss_gradients = loss_gradients<T>};

}  // namespace

const TrainingKernels<float>& kernels_f32() { return kKernels<float>; }
const TrainingKernels<double>& kernels_f64() { return kKernels<double>; }

}  // namespace puna::kernels::PUNA_KERNELS_NAMESPACE
