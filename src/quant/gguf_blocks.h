// Rows of floats to GGUF's blocks (their layout: kernels/formats/gguf_blocks.h), with scales that minimise the squared
// error. Raw pointers; files are gguf_model's.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/format.h"

namespace puna::quant {

struct BlockSums {
  double squared_error = 0, squared_norm = 0;  // unweighted, with the scales as stored
};

/// Bytes of a row of `cols` columns, which are whole blocks.
int64_t block_row_bytes(const Format& format, int64_t cols);

/// `values` [rows, cols] to `out` [rows, block_row_bytes]; adds to `sums`. `importance`: a weight per column of its
/// squared error, or null: all equal. False when a value is not finite or too large for a scale in binary16. Results do
/// not depend on the number of threads.
[[nodiscard]] bool encode_blocks(const Format& format, const float* values, int64_t rows, int64_t cols,
                                 const float* importance, int64_t threads, std::byte* out, BlockSums& sums);

}  // namespace puna::quant
