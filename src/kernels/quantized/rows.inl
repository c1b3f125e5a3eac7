// Quantisation of rows and widening of weights, compiled once for each instruction set. Functions of the headers are not used: an inline copy
// made here may be the one that the linker keeps for all, with instructions that not every CPU has.
#include <cstdint>
#include <cstring>

#include "kernels/quantized/matmul.h"
#include "kernels/quantized/tile.h"

namespace puna::kernels {
namespace {

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

/// e^x to 2 units in the last place: reduction by multiples of ln 2, then a polynomial. Below -87: 0.
inline float exp_of(float x) {
  const float clamped = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
  const float shifted = clamped * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const float power = float_of((bits_of(shifted) - kRoundBits + 127) << 23);
  return x < -87.0f ? 0.0f : p * power;
}

inline float silu(float x) { return x / (1 + exp_of(-x)); }

/// A group of kRowGroup values, zeros where the row has ended.
inline void quantize_group(const float* values, int8_t* q, float& scale, int16_t* sums) {
  uint32_t largest_bits = 0;  // order of magnitudes, infinity and NaN last
  for (int64_t i = 0; i < kRowGroup; ++i) {
    const uint32_t magnitude = bits_of(values[i]) & 0x7FFFFFFF;
    largest_bits = largest_bits > magnitude ? largest_bits : magnitude;
  }
  const float largest = float_of(largest_bits);
  if (largest_bits >= kInfinityBits || largest < kSmallest) {
    std::memset(q, 0, kRowGroup);
    std::memset(sums, 0, kRowGroup / kRowSum * sizeof(*sums));
    scale = largest < kSmallest ? 0 : float_of(kNanBits);
    return;
  }
  const float inverse = 127 / largest;
  for (int64_t part = 0; part < kRowGroup / kRowSum; ++part) {
    int32_t total = 0;
    for (int64_t i = part * kRowSum; i < (part + 1) * kRowSum; ++i) {
      const float rounded = values[i] * inverse + kRound;
      const int32_t value = static_cast<int32_t>(bits_of(rounded) - kRoundBits);
      total += value;
      q[i] = static_cast<int8_t>(value);
    }
    sums[part] = static_cast<int16_t>(total);
  }
  scale = largest / 127;
}

/// value(m, k) of rows begin to end.
template <typename F>
inline void quantize_values(int64_t k, int64_t begin, int64_t end, const QuantizedRows& rows, const F& value) {
  const int64_t groups = (k + kRowGroup - 1) / kRowGroup;
  float values[kRowGroup];
  for (int64_t m = begin; m < end; ++m) {
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t at = m * groups + g, first = g * kRowGroup, count = k - first < kRowGroup ? k - first : kRowGroup;
      for (int64_t i = 0; i < count; ++i) values[i] = value(m, first + i);
      for (int64_t i = count; i < kRowGroup; ++i) values[i] = 0;
      quantize_group(values, rows.q + at * kRowGroup, rows.scales[at], rows.sums + at * (kRowGroup / kRowSum));
    }
  }
}

template <typename T>
void quantize(const T* x, int64_t stride, int64_t k, int64_t begin, int64_t end, const QuantizedRows& rows) {
  quantize_values(k, begin, end, rows, [=](int64_t m, int64_t c) { return widened(x[m * stride + c]); });
}

void quantize_swiglu(const float* gate, const float* up, int64_t stride, int64_t k, int64_t begin, int64_t end,
                     const QuantizedRows& rows) {
  quantize_values(k, begin, end, rows,
                  [=](int64_t m, int64_t c) { return silu(gate[m * stride + c]) * up[m * stride + c]; });
}

void swiglu_bf16(const float* gate, const float* up, int64_t stride, int64_t k, int64_t begin, int64_t end,
                 uint16_t* out) {
  for (int64_t m = begin; m < end; ++m) {
    for (int64_t c = 0; c < k; ++c) {
      const uint32_t bits = bits_of(silu(gate[m * stride + c]) * up[m * stride + c]);
      const uint32_t rounded = (bits & 0x7FFFFFFF) > kInfinityBits ? bits | 0x400000 : bits + 0x7FFF + (bits >> 16 & 1);
      out[m * k + c] = static_cast<uint16_t>(rounded >> 16);
    }
  }
}

/// As TileKernels::widen. A byte of 2-bit quants is two bytes of nibbles, each with two of its quants.
template <bool kThirdBits>
void widen_quants(int64_t padded_k, const uint8_t* __restrict from, uint8_t* __restrict to) {
  constexpr int kRun = 64;
  for (int64_t k = 0; k < padded_k; k += 32, from += (kThirdBits ? 3 : 2) * kRun, to += 4 * kRun) {
    for (int i = 0; i < kRun; ++i) {
      uint8_t nibbles[4] = {static_cast<uint8_t>(from[i] & 0x33), static_cast<uint8_t>(from[i] >> 2 & 0x33),
                            static_cast<uint8_t>(from[kRun + i] & 0x33),
                            static_cast<uint8_t>(from[kRun + i] >> 2 & 0x33)};
      for (int pair = 0; pair < 4; ++pair) {
        if (kThirdBits) nibbles[pair] |= static_cast<uint8_t>((from[2 * kRun + i] >> pair & 0x11) << 2);
        to[pair * kRun + i] = nibbles[pair];
      }
    }
  }
}

void widen(int bits, int64_t padded_k, const uint8_t* quants, uint8_t* nibbles) {
  bits == 3 ? widen_quants<true>(padded_k, quants, nibbles) : widen_quants<false>(padded_k, quants, nibbles);
}

}  // namespace
}  // namespace puna::kernels
