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
constexpr int64_t kBlockCols = 128;  // groups are 32, 128 or a whole row

int64_t pieces(int64_t count, int64_t of_piece) { return (count + of_piece - 1) / of_piece; }

/// Words of 32 bits.
int64_t words(int64_t count, int bits) { return pieces(count * bits, 32); }

IntRange range_of(const Format& format) {
  const int half = 1 << (format.bits() - 1);
  return {-half, half - 1, format.symmetric};
}

void add_bits(std::byte* at, uint32_t bits) {
  uint32_t word;
  std::memcpy(&word, at, 4);
  word |= bits;
  std::memcpy(at, &word, 4);
}

/// Puts q + half the range at place `index` of a run of words that lie `stride` words apart; 3 bits may end in the
/// next.
void put(std::byte* run, int64_t index, int64_t stride, int bits, int q) {
  const uint64_t value = static_cast<uint64_t>(q + (1 << (bits - 1))) << (index * bits % 32);
  std::byte* at = run + index * bits / 32 * stride * 4;
  add_bits(at, static_cast<uint32_t>(value));
  if (value >> 32 != 0) add_bits(at + stride * 4, static_cast<uint32_t>(value >> 32));
}

}  // namespace

int64_t words_per_row(const Format& format, int64_t cols) { return words(cols, format.bits()); }

MatrixQuantiser::MatrixQuantiser(int64_t rows, int64_t cols, const Format& format, DType scale_dtype,
                                 std::span<const float> importance, at::Tensor factor)
    : rows_(rows),
      cols_(cols),
      group_(format.group ? format.group : cols),
      groups_(cols / group_),
      row_bytes_(format.code == Code::kFp8 ? cols : words_per_row(format, cols) * 4),
      format_(format),
      scale_dtype_(scale_dtype),
      importance_(importance.begin(), importance.end()),
      factor_(std::move(factor)) {
  PUNA_CHECK(format.quantised() && format.fits(cols) && rows > 0 && cols > 0, "{} for [{}, {}]", format_name(format),
             rows, cols);
  PUNA_CHECK(importance.empty() || static_cast<int64_t>(importance.size()) == cols, "{} weights for {} columns",
             importance.size(), cols);
  PUNA_CHECK(scale_dtype == DType::BF16 || scale_dtype == DType::F32, "scales as {}", dtype_name(scale_dtype));
  if (importance_.empty()) importance_.assign(static_cast<size_t>(cols), 1.0f);
  result_.values.resize(static_cast<size_t>(rows * row_bytes_));
  result_.scales.resize(static_cast<size_t>(rows * groups_ * *dtype_bytes(scale_dtype, 1)));
  if (!format.symmetric) zeros_.resize(static_cast<size_t>(rows * groups_));
}

bool MatrixQuantiser::add(const float* values, int64_t count, int64_t threads) {
  PUNA_CHECK(next_ + count <= rows_, "row {} of {}", next_ + count, rows_);
  if (!std::all_of(values, values + count * cols_, [](float v) { return std::isfinite(v); })) return false;
  std::vector<Sums> sums(static_cast<size_t>(count));
  if (factor_.defined()) {
    sums = add_compensated(values, count, threads);
  } else {
    parallel_for(pieces(count, kRowsPerTask), threads, [&](int64_t task) {
      const int64_t end = std::min(count, (task + 1) * kRowsPerTask);
      for (int64_t r = task * kRowsPerTask; r < end; ++r)
        sums[static_cast<size_t>(r)] = quantise_row(values + r * cols_, next_ + r);
    });
  }
  for (const Sums& row : sums) result_.squared_error += row.error, result_.squared_norm += row.norm;
  next_ += count;
  return true;
}

Fit MatrixQuantiser::fit_group(const float* x, int64_t group) const {
  const float* weight = importance_.data() + group * group_;
  return format_.code == Code::kFp8 ? fit_fp8(x, weight, group_, scale_dtype_)
                                    : fit_int(x, weight, group_, range_of(format_), scale_dtype_);
}

void MatrixQuantiser::store_fit(int64_t row, int64_t group, const Fit& fit) {
  store_scale(row * groups_ + group, fit.scale);
  if (!format_.symmetric) zeros_[static_cast<size_t>(row * groups_ + group)] = static_cast<int8_t>(fit.zero);
}

/// What is stored for x, as a value.
float MatrixQuantiser::store_value(int64_t row, int64_t col, float x, const Fit& fit) {
  std::byte* out = result_.values.data() + row * row_bytes_;
  if (format_.code == Code::kFp8) {
    const float value = round_fp8(x * (1 / fit.scale));
    out[col] = static_cast<std::byte>(fp8_bits(value));
    return value * fit.scale;
  }
  const int q = quantise_int(x, fit, range_of(format_));
  put(out, col, 1, format_.bits(), q);
  return static_cast<float>(q - fit.zero) * fit.scale;
}

MatrixQuantiser::Sums MatrixQuantiser::quantise_row(const float* row, int64_t index) {
  Sums sums;
  for (int64_t g = 0; g < groups_; ++g) {
    const float* x = row + g * group_;
    const Fit fit = fit_group(x, g);
    store_fit(index, g, fit);
    for (int64_t i = 0; i < group_; ++i) {
      const double error = static_cast<double>(store_value(index, g * group_ + i, x[i], fit)) - x[i];
      sums.error += error * error;
      sums.norm += static_cast<double>(x[i]) * x[i];
    }
  }
  return sums;
}

// Frantar et al., arXiv 2210.17323, algorithm 1: within a block of columns at once, beyond it as one product.
std::vector<MatrixQuantiser::Sums> MatrixQuantiser::add_compensated(const float* values, int64_t count,
                                                                    int64_t threads) {
  std::vector<Sums> sums(static_cast<size_t>(count));
  at::Tensor left = at::from_blob(const_cast<float*>(values), {count, cols_}, at::kFloat).clone();
  const float* factor = factor_.const_data_ptr<float>();
  std::vector<Fit> fits(static_cast<size_t>(count));
  for (int64_t begin = 0; begin < cols_; begin += kBlockCols) {
    const int64_t end = std::min(cols_, begin + kBlockCols);
    at::Tensor errors = at::empty({count, end - begin}, at::kFloat);
    parallel_for(pieces(count, kRowsPerTask), threads, [&](int64_t task) {
      for (int64_t r = task * kRowsPerTask; r < std::min(count, (task + 1) * kRowsPerTask); ++r) {
        float* w = left.data_ptr<float>() + r * cols_;
        float* error = errors.data_ptr<float>() + r * (end - begin);
        Fit& fit = fits[static_cast<size_t>(r)];
        for (int64_t c = begin; c < end; ++c) {
          if (c % group_ == 0) store_fit(next_ + r, c / group_, fit = fit_group(w + c, c / group_));
          const float stored = store_value(next_ + r, c, w[c], fit), original = values[r * cols_ + c];
          const float* u = factor + c * cols_;
          error[c - begin] = (w[c] - stored) / u[c];
          for (int64_t k = c + 1; k < end; ++k) w[k] -= error[c - begin] * u[k];
          Sums& sum = sums[static_cast<size_t>(r)];
          sum.error += (static_cast<double>(stored) - original) * (static_cast<double>(stored) - original);
          sum.norm += static_cast<double>(original) * original;
        }
      }
    });
    if (end < cols_)
      left.narrow(1, end, cols_ - end)
          .sub_(at::mm(errors, factor_.narrow(0, begin, end - begin).narrow(1, end, cols_ - end)));
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
    result_.zero_points.resize(static_cast<size_t>(words(rows_, format_.bits()) * groups_ * 4));
    for (int64_t r = 0; r < rows_; ++r)
      for (int64_t g = 0; g < groups_; ++g)
        put(result_.zero_points.data() + g * 4, r, groups_, format_.bits(),
            zeros_[static_cast<size_t>(r * groups_ + g)]);
  }
  return std::move(result_);
}

}  // namespace puna::quant
