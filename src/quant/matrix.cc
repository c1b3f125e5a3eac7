#include "quant/matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/parallel_for.h"
#include "quant/scale_search.h"

namespace puna::quant {
namespace {

constexpr int64_t kRowsPerTask = 16;

int values_per_word(const Format& format) { return format.code == Code::kInt4 ? 8 : 4; }

int64_t words(int64_t count, int64_t per_word) { return (count + per_word - 1) / per_word; }

IntRange range_of(const Format& format) {
  return format.code == Code::kInt4 ? IntRange{-8, 7, format.symmetric} : IntRange{-128, 127, format.symmetric};
}

/// Puts q + half the range at place `index` of a run of words that lie `stride` words apart.
void put(std::byte* run, int64_t index, int64_t stride, int per_word, int q) {
  const int bits = 32 / per_word;
  std::byte* at = run + index / per_word * stride * 4;
  uint32_t word;
  std::memcpy(&word, at, 4);
  word |= static_cast<uint32_t>(q + (1 << (bits - 1))) << (index % per_word * bits);
  std::memcpy(at, &word, 4);
}

}  // namespace

int64_t words_per_row(const Format& format, int64_t cols) { return words(cols, values_per_word(format)); }

MatrixQuantiser::MatrixQuantiser(int64_t rows, int64_t cols, const Format& format, DType scale_dtype,
                                 std::span<const float> importance)
    : rows_(rows),
      cols_(cols),
      group_(format.group ? format.group : cols),
      groups_(cols / group_),
      format_(format),
      scale_dtype_(scale_dtype),
      importance_(importance.begin(), importance.end()) {
  PUNA_CHECK(format.quantised() && format.fits(cols) && rows > 0 && cols > 0, "{} for [{}, {}]", format_name(format),
             rows, cols);
  PUNA_CHECK(importance.empty() || static_cast<int64_t>(importance.size()) == cols, "{} weights for {} columns",
             importance.size(), cols);
  PUNA_CHECK(scale_dtype == DType::BF16 || scale_dtype == DType::F32, "scales as {}", dtype_name(scale_dtype));
  if (importance_.empty()) importance_.assign(static_cast<size_t>(cols), 1.0f);
  const int64_t row_bytes = format.code == Code::kFp8 ? cols : words_per_row(format, cols) * 4;
  result_.values.resize(static_cast<size_t>(rows * row_bytes));
  result_.scales.resize(static_cast<size_t>(rows * groups_ * *dtype_bytes(scale_dtype, 1)));
  if (!format.symmetric) zeros_.resize(static_cast<size_t>(rows * groups_));
}

bool MatrixQuantiser::add(const float* values, int64_t count, int64_t threads) {
  PUNA_CHECK(next_ + count <= rows_, "row {} of {}", next_ + count, rows_);
  if (!std::all_of(values, values + count * cols_, [](float v) { return std::isfinite(v); })) return false;
  std::vector<Sums> sums(static_cast<size_t>(count));
  parallel_for(words(count, kRowsPerTask), threads, [&](int64_t task) {
    const int64_t end = std::min(count, (task + 1) * kRowsPerTask);
    for (int64_t r = task * kRowsPerTask; r < end; ++r)
      sums[static_cast<size_t>(r)] = quantise_row(values + r * cols_, next_ + r);
  });
  for (const Sums& row : sums) result_.squared_error += row.error, result_.squared_norm += row.norm;
  next_ += count;
  return true;
}

MatrixQuantiser::Sums MatrixQuantiser::quantise_row(const float* row, int64_t index) {
  Sums sums;
  const bool fp8 = format_.code == Code::kFp8;
  const IntRange range = range_of(format_);
  const int64_t row_bytes = static_cast<int64_t>(result_.values.size()) / rows_;
  std::byte* out = result_.values.data() + index * row_bytes;
  for (int64_t g = 0; g < groups_; ++g) {
    const float* x = row + g * group_;
    const float* weight = importance_.data() + g * group_;
    const Fit fit = fp8 ? fit_fp8(x, weight, group_, scale_dtype_) : fit_int(x, weight, group_, range, scale_dtype_);
    store_scale(index * groups_ + g, fit.scale);
    if (!format_.symmetric) zeros_[static_cast<size_t>(index * groups_ + g)] = static_cast<int8_t>(fit.zero);
    const float inverse = 1 / fit.scale;
    for (int64_t i = 0; i < group_; ++i) {
      const int64_t c = g * group_ + i;
      float value;
      if (fp8) {
        value = round_fp8(x[i] * inverse);
        out[c] = static_cast<std::byte>(fp8_bits(value));
      } else {
        const int q = quantise_int(x[i], fit, range);
        put(out, c, 1, values_per_word(format_), q);
        value = static_cast<float>(q - fit.zero);
      }
      const double error = static_cast<double>(value) * fit.scale - x[i];
      sums.error += error * error;
      sums.norm += static_cast<double>(x[i]) * x[i];
    }
  }
  return sums;
}

void MatrixQuantiser::store_scale(int64_t index, float scale) {
  const auto bits = std::bit_cast<uint32_t>(scale);
  if (scale_dtype_ == DType::F32) {
    std::memcpy(result_.scales.data() + index * 4, &bits, 4);
  } else {
    const auto upper = static_cast<uint16_t>(bits >> 16);
    std::memcpy(result_.scales.data() + index * 2, &upper, 2);
  }
}

QuantisedMatrix MatrixQuantiser::finish() {
  PUNA_CHECK(next_ == rows_, "{} of {} rows", next_, rows_);
  if (!format_.symmetric) {
    const int per_word = values_per_word(format_);
    result_.zero_points.resize(static_cast<size_t>(words(rows_, per_word) * groups_ * 4));
    for (int64_t r = 0; r < rows_; ++r)
      for (int64_t g = 0; g < groups_; ++g)
        put(result_.zero_points.data() + g * 4, r, groups_, per_word, zeros_[static_cast<size_t>(r * groups_ + g)]);
  }
  return std::move(result_);
}

}  // namespace puna::quant
