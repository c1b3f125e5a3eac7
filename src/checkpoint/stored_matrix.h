// Matrices as they lie in files, readable by rows as any float type: plain values, GGUF blocks, scaled integers and
// FP8.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "checkpoint/model_source.h"
#include "io/tensor_file.h"

namespace puna::checkpoint {

/// A stored matrix [rows, cols]. It keeps its file's mapping alive and touches no byte before read().
class StoredMatrix {
 public:
  virtual ~StoredMatrix() = default;

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }

  /// Rows [begin, end) as `dtype` (F64, F32, F16 or BF16), row-major and contiguous, into `out`.
  virtual void read(int64_t begin, int64_t end, c10::ScalarType dtype, void* out) const = 0;

  /// The stored bytes when they already are `dtype`, row-major and aligned; nullptr otherwise.
  virtual const void* bytes_as(c10::ScalarType dtype) const;

  /// Whether values are decoded from fewer bits than a float's.
  virtual bool is_quantised() const { return false; }
  /// What the kernels would take the values as, when they are integers or FP8 that share scales along the rows; else
  /// nullopt.
  virtual std::optional<kernels::WeightFormat> integer_format() const { return std::nullopt; }
  /// Rows [begin, end) of such a matrix. Throws Error, with `name`, for a scale that is not finite, or that is zero for
  /// integers that are not.
  virtual void read_integers(int64_t begin, int64_t end, const IntegerBlock& out, std::string_view name) const;

  const std::shared_ptr<const void>& owner() const { return owner_; }

 protected:
  StoredMatrix(int64_t rows, int64_t cols, std::shared_ptr<const void> owner);

 private:
  int64_t rows_, cols_;
  std::shared_ptr<const void> owner_;
};

/// Whether load() can make tensors of this type.
bool is_loadable(c10::ScalarType dtype);

/// Rows [first_row, first_row + rows) of `view` seen as a matrix with `cols` columns; plain floats or GGUF blocks.
std::shared_ptr<const StoredMatrix> matrix_of(const io::TensorView& view, int64_t first_row, int64_t rows,
                                              int64_t cols);

/// How the integers or FP8 values of a quantised matrix are stored.
enum class Coding {
  kPacked2,  // in int32 words, as kernels/formats/packed_integers.h says
  kPacked3,
  kPacked4,
  kPacked8,
  kInt8,
  kFp8E4M3,
};

/// Of values in int32 words; else 0.
constexpr int packed_bits(Coding coding) {
  switch (coding) {
    case Coding::kPacked2:
      return 2;
    case Coding::kPacked3:
      return 3;
    case Coding::kPacked4:
      return 4;
    case Coding::kPacked8:
      return 8;
    default:
      return 0;
  }
}

/// value[r, c] = (q[r, c] - zero[r, c]) * scale[r, c], where scale and zero are shared by blocks of the matrix.
struct Quantised {
  Coding coding;
  std::span<const std::byte> values;  // [rows, row_bytes]
  int64_t row_bytes = 0;
  std::span<const std::byte> scales;  // [ceil(rows / block_rows), ceil(cols / block_cols)]
  DType scale_dtype = DType::F32;     // F32, F16, BF16 or F64
  int64_t block_rows = 1;
  int64_t block_cols = 1;
  std::span<const std::byte> zero_points;  // empty: symmetric. Packed along the rows for packed codings, else int8
};

/// How many blocks of `block` cover `extent`; the last may be a part.
constexpr int64_t num_blocks(int64_t extent, int64_t block) { return extent / block + (extent % block != 0); }

/// Checks that the spans of `quantised` hold as much as its sizes say.
std::shared_ptr<const StoredMatrix> quantised_matrix(int64_t rows, int64_t cols, const Quantised& quantised,
                                                     std::shared_ptr<const void> owner);

}  // namespace puna::checkpoint
