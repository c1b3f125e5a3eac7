// One matrix [rows, cols] of floats to integers or FP8 with scales that minimise the squared error.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/dtype.h"
#include "quant/format.h"
#include "quant/scale_search.h"

namespace puna::quant {

/// value[r, c] = (q[r, c] - zero[r, c / group]) * scale[r, c / group], in compressed-tensors' packing.
struct QuantisedMatrix {
  std::vector<std::byte> values;       // integers: int32 words along the columns, low bits first; FP8: [rows, cols]
  std::vector<std::byte> scales;       // [rows, groups] BF16 or F32
  std::vector<std::byte> zero_points;  // int32 words along the rows [ceil(rows * bits / 32), groups]; empty: symmetric
  double squared_error = 0;            // sum over the elements, unweighted, with the scales as stored
  double squared_norm = 0;             // sum of the squares of the given values
};

/// Int32 words per row of packed values.
int64_t words_per_row(const Format& format, int64_t cols);

/// Takes the rows of a matrix in any number of calls, so that a large one need not be in memory as floats. The scale of
/// a group is searched around the largest absolute value, then refined by least squares; it is at least as good as
/// scaling by the largest value. Results do not depend on the number of threads or on how rows are handed over, but for
/// the last bits of sums where a factor compensates.
class MatrixQuantiser {
 public:
  /// `format` is quantised and fits `cols`. `importance`: a weight per column of its squared error, not negative;
  /// empty: all equal. `factor` [cols, cols] FP32, as Calibration gives it: each column's error is made up for by the
  /// columns after it; undefined: columns are rounded alone. `scale_dtype` is BF16 or F32.
  MatrixQuantiser(int64_t rows, int64_t cols, const Format& format, DType scale_dtype,
                  std::span<const float> importance = {}, at::Tensor factor = {});

  /// The next `count` rows, row-major. False when one of them holds a value that is not finite.
  [[nodiscard]] bool add(const float* values, int64_t count, int64_t threads);

  /// After all rows.
  QuantisedMatrix finish();

 private:
  struct Sums {
    double error = 0, norm = 0;
  };
  Sums quantise_row(const float* row, int64_t index);
  std::vector<Sums> add_compensated(const float* values, int64_t count, int64_t threads);
  Fit fit_group(const float* x, int64_t group) const;
  void store_fit(int64_t row, int64_t group, const Fit& fit);
  float store_value(int64_t row, int64_t col, float x, const Fit& fit);
  void store_scale(int64_t index, float scale);

  int64_t rows_, cols_, group_, groups_, row_bytes_, next_ = 0;
  Format format_;
  DType scale_dtype_;
  std::vector<float> importance_;  // [cols]
  at::Tensor factor_;
  std::vector<int8_t> zeros_;  // [rows, groups]
  QuantisedMatrix result_;
};

}  // namespace puna::quant
