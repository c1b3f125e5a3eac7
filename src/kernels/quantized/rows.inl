// Quantisation of rows, compiled once for each instruction set. Functions of the headers are not used: an inline copy
// made here may be the one that the linker keeps for all, with instructions that not every CPU has.
#include <cstdint>
#include <cstring>

#include "kernels/quantized/matmul.h"
#include "kernels/quantized/tile.h"

namespace puna::kernels {
namespace {

constexpr int64_t kLargestGroup = 128;
constexpr float kSmallest = 1e-36f;  // below, 127 / magnitude might overflow
constexpr float kRound = 12582912;   // 1.5 * 2^23: adding it leaves the nearest integer in the lowest bits
constexpr uint32_t kRoundBits = 0x4B400000, kInfinityBits = 0x7F800000, kNanBits = 0x7FC00000;

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
inline float widened(float value) { return value; }
inline float widened(uint16_t bits) { return float_of(uint32_t{bits} << 16); }

/// `count` values of a group; the rest of it is padding.
template <typename T>
void quantize_group(const T* x, int64_t count, int64_t group, int8_t* q, float& scale, int16_t& sum) {
  float values[kLargestGroup];
  uint32_t largest_bits = 0;  // order of magnitudes, infinity and NaN last
  for (int64_t i = 0; i < count; ++i) {
    values[i] = widened(x[i]);
    const uint32_t magnitude = bits_of(values[i]) & 0x7FFFFFFF;
    largest_bits = largest_bits > magnitude ? largest_bits : magnitude;
  }
  const float largest = float_of(largest_bits);
  if (largest_bits >= kInfinityBits || largest < kSmallest) {
    std::memset(q, 0, static_cast<size_t>(group));
    scale = largest < kSmallest ? 0 : float_of(kNanBits);
    sum = 0;
    return;
  }
  const float inverse = 127 / largest;
  int32_t total = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float rounded = values[i] * inverse + kRound;
    const int32_t value = static_cast<int32_t>(bits_of(rounded) - kRoundBits);
    total += value;
    q[i] = static_cast<int8_t>(value);
  }
  std::memset(q + count, 0, static_cast<size_t>(group - count));
  scale = largest / 127;
  sum = static_cast<int16_t>(total);
}

template <typename T>
void quantize(const T* x, int64_t stride, int64_t k, int64_t group, int64_t begin, int64_t end,
              const QuantizedRows& rows) {
  const int64_t blocks = (k + group - 1) / group;
  for (int64_t m = begin; m < end; ++m) {
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t at = m * blocks + b, left = k - b * group;
      quantize_group(x + m * stride + b * group, left < group ? left : group, group, rows.q + at * group,
                     rows.scales[at], rows.sums[at]);
    }
  }
}

}  // namespace
}  // namespace puna::kernels
