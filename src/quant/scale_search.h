// The scale of one group of weights. Raw pointers; no knowledge of how results are packed.
#pragma once

#include <bit>
#include <cstdint>

#include "base/dtype.h"

namespace puna::quant {

/// What integers a group may use; value = (q - zero) * scale.
struct IntRange {
  int low, high;  // -2 and 1, -4 and 3, -8 and 7, -128 and 127
  bool symmetric;
};

struct Fit {
  float scale = 1;
  int zero = 0;
  float error = 0;  // sum of weight * (value - x)^2
};

/// The nearest value that `dtype` (F32, F16 or BF16) holds; ties to even.
float rounded_to(DType dtype, float value);

/// x, weight: [count] finite floats. Groups of zeros get scale 1.
Fit fit_int(const float* x, const float* weight, int64_t count, const IntRange& range, DType scale_dtype);
/// The same for E4M3; `zero` stays 0.
Fit fit_fp8(const float* x, const float* weight, int64_t count, DType scale_dtype);

/// The nearest integer to x / scale + zero in the range; ties to even.
int quantise_int(float x, const Fit& fit, const IntRange& range);

/// The nearest E4M3 value to x, which is clamped to +-448; ties to even.
float round_fp8(float x);
/// The bits of a value that round_fp8() gave.
uint8_t fp8_bits(float rounded);

}  // namespace puna::quant
