// Narrow floating-point formats to float, one value at a time; every bit pattern has a result.
#pragma once

#include <bit>
#include <cstdint>

namespace puna::kernels {

/// IEEE binary16.
inline float f16_to_float(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16, exponent = bits >> 10 & 31, fraction = bits & 0x3FF;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | fraction << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}

inline float bf16_to_float(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

/// OCP E4M3 "fn": no infinities, 0x7F and 0xFF are NaN, largest 448.
inline float f8e4m3_to_float(uint8_t bits) {
  const uint32_t sign = uint32_t{bits & 0x80u} << 24, exponent = bits >> 3 & 15, fraction = bits & 7;
  if ((bits & 0x7F) == 0x7F) return std::bit_cast<float>(sign | 0x7FC00000u);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 120) << 23 | fraction << 20);
  const float magnitude = static_cast<float>(fraction) * 0x1p-9f;
  return sign ? -magnitude : magnitude;
}

/// OCP E5M2: the upper byte of a binary16.
inline float f8e5m2_to_float(uint8_t bits) { return f16_to_float(static_cast<uint16_t>(bits << 8)); }

}  // namespace puna::kernels
