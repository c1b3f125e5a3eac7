#include "checkpoint/stored_row.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/parallel_for.h"

namespace puna::checkpoint {
namespace {

constexpr int64_t kBlockElements = 256 << 10;
constexpr int64_t kMinTransposedRows = 64;
constexpr int64_t kTile = 32;
constexpr int64_t kElementsPerThread = 4 << 20;

bool is_whole_row(const Piece& piece) {
  return piece.offset == 0 && piece.col_stride == 1 && piece.row_stride == piece.matrix->cols();
}

/// out[c * stride + r] = in[r * cols + c] by tiles, so that both sides stay in cache lines.
template <typename T>
void write_transposed(const T* in, int64_t rows, int64_t cols, T* out, int64_t stride) {
  for (int64_t c0 = 0; c0 < cols; c0 += kTile)
    for (int64_t r0 = 0; r0 < rows; r0 += kTile)
      for (int64_t c = c0; c < std::min(cols, c0 + kTile); ++c)
        for (int64_t r = r0; r < std::min(rows, r0 + kTile); ++r) out[c * stride + r] = in[r * cols + c];
}

void write_transposed(const std::byte* in, int64_t rows, int64_t cols, std::byte* out, int64_t stride,
                      int64_t element_bytes) {
  if (element_bytes == 2)
    write_transposed(reinterpret_cast<const uint16_t*>(in), rows, cols, reinterpret_cast<uint16_t*>(out), stride);
  else if (element_bytes == 4)
    write_transposed(reinterpret_cast<const uint32_t*>(in), rows, cols, reinterpret_cast<uint32_t*>(out), stride);
  else
    write_transposed(reinterpret_cast<const uint64_t*>(in), rows, cols, reinterpret_cast<uint64_t*>(out), stride);
}

/// Rows [begin, end) of the piece into the row's tensor at `out`.
void copy_block(const Piece& piece, int64_t begin, int64_t end, c10::ScalarType dtype, std::byte* out) {
  const auto& matrix = *piece.matrix;
  const int64_t cols = matrix.cols();
  const int64_t element = static_cast<int64_t>(c10::elementSize(dtype));
  std::byte* target = out + (piece.offset + begin * piece.row_stride) * element;
  if (piece.col_stride == 1 && piece.row_stride == cols) {
    matrix.read(begin, end, dtype, target);
  } else if (piece.col_stride == 1) {
    for (int64_t r = begin; r < end; ++r, target += piece.row_stride * element) matrix.read(r, r + 1, dtype, target);
  } else {
    PUNA_CHECK(piece.row_stride == 1, "strides {} and {}", piece.row_stride, piece.col_stride);
    const auto buffer = std::make_unique_for_overwrite<std::byte[]>((end - begin) * cols * element);
    matrix.read(begin, end, dtype, buffer.get());
    write_transposed(buffer.get(), end - begin, cols, target, piece.col_stride, element);
  }
}

struct Block {
  const Piece* piece;
  int64_t begin, end;
};

std::vector<Block> blocks_of(const StoredRow& row) {
  std::vector<Block> blocks;
  for (const Piece& piece : row.pieces) {
    const int64_t rows = piece.matrix->rows();
    const int64_t least = piece.col_stride == 1 ? 1 : kMinTransposedRows;
    const int64_t step = std::max(least, kBlockElements / std::max<int64_t>(1, piece.matrix->cols()));
    for (int64_t r = 0; r < rows; r += step) blocks.push_back({&piece, r, std::min(rows, r + step)});
  }
  return blocks;
}

}  // namespace

const void* mapped_bytes(const StoredRow& row, c10::ScalarType dtype) {
  if (row.pieces.size() != 1 || !is_whole_row(row.pieces[0])) return nullptr;
  return row.pieces[0].matrix->bytes_as(dtype);
}

bool is_quantised(const StoredRow& row) {
  return std::ranges::any_of(row.pieces, [](const Piece& piece) { return piece.matrix->is_quantised(); });
}

std::optional<IntegerRow> integers_of(const StoredRow& row, at::IntArrayRef shape) {
  const bool routed = shape.size() == 3;  // [E, in, out], a linear [out, in]
  if ((!routed && shape.size() != 2) || row.pieces.empty()) return std::nullopt;
  const int64_t in = shape[1], out = routed ? shape[2] : shape[0], count = routed ? shape[0] : 1;
  std::vector<std::optional<kernels::WeightFormat>> formats(static_cast<size_t>(count));
  for (const Piece& piece : row.pieces) {
    const bool by_outputs =
        routed ? piece.row_stride == 1 && piece.col_stride == out : piece.row_stride == in && piece.col_stride == 1;
    const auto format = piece.matrix->integer_format();
    if (!by_outputs || piece.matrix->cols() != in || !format) return std::nullopt;
    auto& of_matrix = formats[static_cast<size_t>(piece.offset / (out * in))];
    if (of_matrix.value_or(*format) != *format) return std::nullopt;
    of_matrix = format;
  }
  IntegerRow integers{{{out, in, *formats[0]}, count}};
  for (size_t i = 0; i < formats.size(); ++i) {
    if (!formats[i]->takes_rows_of(*formats[0])) return std::nullopt;
    integers.shapes.formats[i] = *formats[i];
  }
  return integers;
}

void read_stored_integers(const StoredRow& row, const IntegerRow& integers, int64_t matrix, int64_t begin, int64_t end,
                          const IntegerBlock& out, std::string_view name) {
  const auto& [n, k, format] = integers.shapes[matrix];
  const int64_t groups = format.channel_scales ? 1 : num_blocks(k, format.group);
  for (const Piece& piece : row.pieces) {
    // Of a piece its first output: a step along the outputs is row_stride elements.
    const int64_t first = piece.offset % (n * k) / piece.row_stride, of_piece = piece.matrix->rows();
    if (piece.offset / (n * k) != matrix || first >= end || first + of_piece <= begin) continue;
    const int64_t from = std::max(begin, first), to = std::min(end, first + of_piece), skipped = from - begin;
    piece.matrix->read_integers(
        from - first, to - first,
        {out.q + skipped * k, out.scales + skipped * groups, out.zeros ? out.zeros + skipped * groups : nullptr}, name);
  }
}

at::Tensor load_stored_row(const StoredRow& row, at::IntArrayRef shape, c10::ScalarType dtype) {
  if (const void* bytes = mapped_bytes(row, dtype)) {
    // Writing through it is safe: the mapping is private, and every page copied when it is written to.
    return at::from_blob(
        const_cast<void*>(bytes), shape, [owner = row.pieces[0].matrix->owner()](void*) {}, at::TensorOptions(dtype));
  }
  at::Tensor result = at::empty(shape, at::TensorOptions(dtype));
  auto* out = static_cast<std::byte*>(result.data_ptr());
  const auto blocks = blocks_of(row);
  const int64_t threads = std::clamp<int64_t>(result.numel() / kElementsPerThread, 1, at::get_num_threads());
  parallel_for(static_cast<int64_t>(blocks.size()), threads,
               [&](int64_t i) { copy_block(*blocks[i].piece, blocks[i].begin, blocks[i].end, dtype, out); });
  return result;
}

}  // namespace puna::checkpoint
