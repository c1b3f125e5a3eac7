// Rounding to the nearest, ties to even, without library calls, so that loops of it become vector code.
#pragma once

#include <bit>
#include <cstdint>

namespace puna::kernels {

/// NaN stays NaN.
inline uint16_t bf16_from_float(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/// For magnitudes to 2^21: adding 1.5 * 2^23 leaves the integer in the lowest bits.
inline int32_t nearest_int(float value) {
  return std::bit_cast<int32_t>(value + 12582912.0f) - std::bit_cast<int32_t>(12582912.0f);
}

}  // namespace puna::kernels
