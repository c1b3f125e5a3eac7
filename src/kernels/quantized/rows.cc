#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/formats/floats.h"
#include "kernels/quantized/matmul.h"
#include "kernels/quantized/rounding.h"

namespace puna::kernels {
namespace {

constexpr int64_t kLargestGroup = 128;
constexpr float kSmallest = 1e-36f;  // below, 127 / magnitude might overflow

float to_float(float value) { return value; }
float to_float(uint16_t bits) { return bf16_to_float(bits); }

/// `count` values of a group; the rest of it is padding.
template <typename T>
void quantize_group(const T* x, int64_t count, int64_t group, int8_t* q, float& scale, int16_t& sum) {
  float values[kLargestGroup];
  uint32_t largest_bits = 0;  // order of magnitudes, infinity and NaN last
  for (int64_t i = 0; i < count; ++i) {
    values[i] = to_float(x[i]);
    largest_bits = std::max(largest_bits, std::bit_cast<uint32_t>(values[i]) & 0x7FFFFFFF);
  }
  const float largest = std::bit_cast<float>(largest_bits);
  sum = 0;
  if (largest_bits >= 0x7F800000 || largest < kSmallest) {
    std::fill(q, q + group, int8_t{0});
    scale = largest < kSmallest ? 0 : std::numeric_limits<float>::quiet_NaN();
    return;
  }
  const float inverse = 127 / largest;
  int32_t total = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t value = nearest_int(values[i] * inverse);
    total += value;
    q[i] = static_cast<int8_t>(value);
  }
  std::fill(q + count, q + group, int8_t{0});
  scale = largest / 127;
  sum = static_cast<int16_t>(total);
}

template <typename T>
void quantize(const T* x, int64_t stride, int64_t k, int64_t group, int64_t begin, int64_t end,
              const QuantizedRows& rows) {
  const int64_t blocks = (k + group - 1) / group;
  for (int64_t m = begin; m < end; ++m) {
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t at = m * blocks + b;
      quantize_group(x + m * stride + b * group, std::min(group, k - b * group), group, rows.q + at * group,
                     rows.scales[at], rows.sums[at]);
    }
  }
}

}  // namespace

void quantize_rows(const float* x, int64_t stride, int64_t k, int64_t group, int64_t begin, int64_t end,
                   const QuantizedRows& rows) {
  quantize(x, stride, k, group, begin, end, rows);
}

void quantize_rows(const uint16_t* x, int64_t stride, int64_t k, int64_t group, int64_t begin, int64_t end,
                   const QuantizedRows& rows) {
  quantize(x, stride, k, group, begin, end, rows);
}

}  // namespace puna::kernels
