#include "quant/gguf_blocks.h"

#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/parallel_for.h"
#include "quant/scale_search.h"

namespace puna::quant {
namespace {

constexpr int kSmall = 32;   // elements of Q8_0 and Q4_0, and of a part of Q4_K
constexpr int kParts = 8;    // of a Q4_K block
constexpr int kSuper = 256;  // elements of Q4_K
constexpr int64_t kRowsPerTask = 16;
constexpr float kLargestScale = 65504;  // of binary16

void put_half(std::byte* out, float value) {
  const uint16_t bits = c10::Half(value).x;
  std::memcpy(out, &bits, 2);
}

/// d * q, q in -127..127: llama.cpp's products of bytes cannot take -128.
void encode_q8_0(const float* x, const float* weight, std::byte* out, float* decoded) {
  const IntRange range{-127, 127, true};
  const Fit fit = fit_int(x, weight, kSmall, range, DType::F16);
  const float d = rounded_to(DType::F16, fit.scale);
  put_half(out, d);
  for (int i = 0; i < kSmall; ++i) {
    const int q = quantise_int(x[i], fit, range);
    out[2 + i] = static_cast<std::byte>(q);
    decoded[i] = d * static_cast<float>(q);
  }
}

/// d * (q - 8), q in 0..15. A negative d puts the eighth step on the positive side.
void encode_q4_0(const float* x, const float* weight, std::byte* out, float* decoded) {
  const IntRange range{-8, 7, true};
  float negated[kSmall];
  for (int i = 0; i < kSmall; ++i) negated[i] = -x[i];
  const Fit up = fit_int(x, weight, kSmall, range, DType::F16);
  const Fit down = up.error == 0 ? up : fit_int(negated, weight, kSmall, range, DType::F16);
  const bool flip = down.error < up.error;
  const Fit& fit = flip ? down : up;
  const float d = rounded_to(DType::F16, flip ? -fit.scale : fit.scale);
  put_half(out, d);
  std::memset(out + 2, 0, kSmall / 2);
  for (int i = 0; i < kSmall; ++i) {
    const int q = quantise_int(flip ? negated[i] : x[i], fit, range);
    out[2 + i % (kSmall / 2)] |= static_cast<std::byte>((q + 8) << (i < kSmall / 2 ? 0 : 4));
    decoded[i] = d * static_cast<float>(q);
  }
}

/// x = scale * q - offset with q in 0..15 and offset >= 0.
struct Affine {
  float scale = 0, offset = 0;
  double error = 0;
};

int step_of(float x, const Affine& a) {
  return a.scale > 0 ? static_cast<int>(std::lrint(std::clamp((x + a.offset) / a.scale, 0.0f, 15.0f))) : 0;
}

double error_of(const float* x, const float* weight, const Affine& a) {
  double error = 0;
  for (int i = 0; i < kSmall; ++i) {
    const double e = static_cast<double>(a.scale) * step_of(x[i], a) - a.offset - x[i];
    error += weight[i] * e * e;
  }
  return error;
}

/// The best scale and offset for the steps that `a` gives.
Affine least_squares(const float* x, const float* weight, const Affine& a) {
  double w = 0, wq = 0, wqq = 0, wx = 0, wqx = 0;
  for (int i = 0; i < kSmall; ++i) {
    const double q = step_of(x[i], a), u = weight[i];
    w += u, wq += u * q, wqq += u * q * q, wx += u * x[i], wqx += u * q * x[i];
  }
  const double determinant = w * wqq - wq * wq;
  Affine out;
  if (determinant > 0) {
    out.scale = static_cast<float>((w * wqx - wq * wx) / determinant);
    out.offset = static_cast<float>((wq * wqx - wqq * wx) / determinant);
  }
  if (!(determinant > 0) || out.offset < 0) out = {wqq > 0 ? static_cast<float>(wqx / wqq) : 0, 0};
  return out;
}

Affine fit_affine(const float* x, const float* weight) {
  const auto [low_at, high_at] = std::minmax_element(x, x + kSmall);
  const float low = std::min(*low_at, 0.0f), high = *high_at;
  Affine best{0, std::max(0.0f, -low)};
  best.error = error_of(x, weight, best);
  if (!(high > low)) return best;
  constexpr int kSteps = 20;
  for (int i = -2; i <= kSteps; ++i) {
    const float ratio = 1 - 0.025f * static_cast<float>(i);
    Affine a{ratio * (high - low) / 15, -low * (i > 0 ? ratio : 1)};
    for (int round = 0; round < 2; ++round) {
      a.error = error_of(x, weight, a);
      if (a.error < best.error) best = a;
      a = least_squares(x, weight, a);
      if (!(a.scale > 0)) break;
    }
    a.error = error_of(x, weight, a);
    if (a.scale > 0 && a.error < best.error) best = a;
  }
  return best;
}

void put_six_bits(std::byte* packed, int part, int scale, int offset) {
  const auto put = [&](int at, int bits) { packed[at] |= static_cast<std::byte>(bits); };
  if (part < 4) {
    put(part, scale), put(part + 4, offset);
  } else {
    put(part + 4, (scale & 15) | (offset & 15) << 4);
    put(part - 4, scale >> 4 << 6), put(part, offset >> 4 << 6);
  }
}

/// d * scale * q - dmin * offset, with six bits of scale and offset for each part of 32.
void encode_q4_k(const float* x, const float* weight, std::byte* out, float* decoded) {
  Affine fits[kParts];
  float most_scale = 0, most_offset = 0;
  for (int p = 0; p < kParts; ++p) {
    fits[p] = fit_affine(x + p * kSmall, weight + p * kSmall);
    most_scale = std::max(most_scale, fits[p].scale), most_offset = std::max(most_offset, fits[p].offset);
  }
  const float d = rounded_to(DType::F16, most_scale / 63), dmin = rounded_to(DType::F16, most_offset / 63);
  std::memset(out, 0, 144);
  put_half(out, d), put_half(out + 2, dmin);
  for (int p = 0; p < kParts; ++p) {
    const float* part = x + p * kSmall;
    const auto six = [](float value, float unit) {
      return unit > 0 ? std::clamp(static_cast<int>(std::lrint(value / unit)), 0, 63) : 0;
    };
    const int scale = six(fits[p].scale, d);
    Affine stored{d * static_cast<float>(scale), 0};
    // The offset that is best beside the rounded scale may be a neighbour of the nearest one.
    int offset = 0;
    double least = INFINITY;
    for (int o = std::max(0, six(fits[p].offset, dmin) - 1), end = std::min(63, o + 2); o <= end; ++o) {
      stored.offset = dmin * static_cast<float>(o);
      const double error = error_of(part, weight + p * kSmall, stored);
      if (error < least) least = error, offset = o;
    }
    stored.offset = dmin * static_cast<float>(offset);
    put_six_bits(out + 4, p, scale, offset);
    for (int i = 0; i < kSmall; ++i) {
      const int q = step_of(part[i], stored);
      out[16 + p / 2 * kSmall + i] |= static_cast<std::byte>(q << (p % 2 * 4));
      decoded[p * kSmall + i] = stored.scale * static_cast<float>(q) - stored.offset;
    }
  }
}

struct Encoder {
  int elements, bytes;
  void (*encode)(const float*, const float*, std::byte*, float*);
};

Encoder encoder_of(const Format& format) {
  switch (format.code) {
    case Code::kQ8_0:
      return {kSmall, 34, encode_q8_0};
    case Code::kQ4_0:
      return {kSmall, 18, encode_q4_0};
    case Code::kQ4_K:
      return {kSuper, 144, encode_q4_k};
    default:
      throw InternalError("no block of GGUF");
  }
}

}  // namespace

int64_t block_row_bytes(const Format& format, int64_t cols) {
  const Encoder encoder = encoder_of(format);
  PUNA_CHECK(cols % encoder.elements == 0, "{} columns in blocks of {}", cols, encoder.elements);
  return cols / encoder.elements * encoder.bytes;
}

bool encode_blocks(const Format& format, const float* values, int64_t rows, int64_t cols, const float* importance,
                   int64_t threads, std::byte* out, BlockSums& sums) {
  // Of the formats' scales none is larger than the largest value itself.
  if (!std::all_of(values, values + rows * cols, [](float v) { return std::abs(v) <= kLargestScale; })) return false;
  const Encoder encoder = encoder_of(format);
  const int64_t row_bytes = block_row_bytes(format, cols), blocks = cols / encoder.elements;
  const std::vector<float> equal(importance ? 0 : static_cast<size_t>(cols), 1.0f);
  const float* weights = importance ? importance : equal.data();
  std::vector<BlockSums> of_row(static_cast<size_t>(rows));
  parallel_for((rows + kRowsPerTask - 1) / kRowsPerTask, threads, [&](int64_t task) {
    float decoded[kSuper];
    for (int64_t r = task * kRowsPerTask; r < std::min(rows, (task + 1) * kRowsPerTask); ++r) {
      BlockSums& row = of_row[static_cast<size_t>(r)];
      for (int64_t b = 0; b < blocks; ++b) {
        const float* x = values + r * cols + b * encoder.elements;
        encoder.encode(x, weights + b * encoder.elements, out + r * row_bytes + b * encoder.bytes, decoded);
        for (int i = 0; i < encoder.elements; ++i) {
          const double error = static_cast<double>(decoded[i]) - x[i];
          row.squared_error += error * error;
          row.squared_norm += static_cast<double>(x[i]) * x[i];
        }
      }
    }
  });
  for (const BlockSums& row : of_row) sums.squared_error += row.squared_error, sums.squared_norm += row.squared_norm;
  return true;
}

}  // namespace puna::quant
