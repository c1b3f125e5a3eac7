// One row of the parameter table as it lies in files: pieces of matrices, and where each goes in the row's tensor.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "checkpoint/stored_matrix.h"

namespace puna::checkpoint {

/// Element [r, c] of `matrix` is element offset + r * row_stride + c * col_stride of the row's tensor.
struct Piece {
  std::shared_ptr<const StoredMatrix> matrix;
  int64_t offset = 0;
  int64_t row_stride = 0;
  int64_t col_stride = 1;
};

/// Pieces that together cover the row exactly once.
struct StoredRow {
  std::vector<Piece> pieces;
};

/// The stored bytes themselves when they are the row as `dtype`; nullptr when the row must be converted.
const void* mapped_bytes(const StoredRow& row, c10::ScalarType dtype);

bool is_quantised(const StoredRow& row);

/// The row of `shape` as ModelSource::integers() and read_integers() give it: each of its matrices covered by pieces
/// of one format that hold all inputs, their groups alike.
std::optional<IntegerRow> integers_of(const StoredRow& row, at::IntArrayRef shape);
void read_stored_integers(const StoredRow& row, const IntegerRow& integers, int64_t matrix, int64_t begin, int64_t end,
                          const IntegerBlock& out, std::string_view name);

/// The row as a tensor of `shape`: over the mapping when mapped_bytes() allows, else converted block by block, so that
/// the memory needed stays near the row's own size.
at::Tensor load_stored_row(const StoredRow& row, at::IntArrayRef shape, c10::ScalarType dtype);

}  // namespace puna::checkpoint
