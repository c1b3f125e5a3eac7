// What attention() is made of: the plain form, and for each instruction set the attention of a few query rows over one
// split of positions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attention/attention.h"

namespace puna::kernels {

/// A row of the call and a query head, which sees positions `lowest` to `position`.
struct ReferenceRow {
  int64_t row, head, position, lowest;
};
void reference_attention(const AttentionProblem& p, const BlockTable& table, const ReferenceRow& row);

/// 2^x for |x| of at most 1/2, the highest power first; relative error 8e-8.
inline constexpr float kExp2[] = {
    0x1.41fbbap-13f, 0x1.5f3e54p-10f, 0x1.3b2d4cp-7f, 0x1.c6aee8p-5f, 0x1.ebfbdcp-3f, 0x1.62e43p-1f, 1};

inline constexpr int64_t kBlockPositions = 64;  // of one step of the online softmax

/// The sum of a split's values, each times 2^(score - maximum); scores are in units of log 2.
struct PartialRows {
  float* maxima;  // [rows]
  float* sums;    // [rows] of the weights
  float* values;  // [rows, padded_width]
};

/// The query heads of one head of the cache at a few positions of one tile: row = position * group + head.
struct QueryRows {
  int64_t first_position, positions, group;
  int64_t lowest;       // the first position that all of them see
  const void* queries;  // row (i, j) at i * position_stride + j * width elements
  int64_t position_stride, width, padded_width;
  bool bf16;
  float scale;  // of a dot, log2(e) included
};

/// Where a sequence's tiles of one head are.
struct HeadTiles {
  const std::byte *keys, *values;  // the head's first tile of block 0
  BlockTable table;
  int64_t block_size, block_bytes, tile_bytes;
};

struct SplitProblem {
  HeadTiles tiles;
  int64_t begin, end;    // positions, multiples of 16; rows see a part of each tile
  int64_t prefetch_end;  // what is read afterwards, up to here
  bool first;            // of several; what it reads has not been asked for
  std::byte* scratch;    // as prepare() left it
  PartialRows out;
};

struct AttentionKernels {
  struct OfType {
    /// Puts the rows into the scratch, for any number of splits.
    void (*prepare)(const QueryRows& rows, std::byte* scratch);
    void (*split)(const QueryRows& rows, const SplitProblem& problem);
    int64_t (*dots)(int64_t rounds);  // as run_attention_dots()
  };
  OfType types[3];  // by CacheType
  /// sum += next, for rows of both.
  void (*merge)(int64_t rows, int64_t padded_width, const PartialRows& next, const PartialRows& sum);
};

/// Bytes of scratch for that many rows; any instruction set. Aligned to kCacheAlignment.
constexpr int64_t attention_scratch_bytes(int64_t rows, int64_t padded_width) {
  // Queries of 4 bytes with a start each; scores and weights of a block; lanes of sums, a scale; a tile of values.
  return rows * (padded_width * 4 + 64 + 2 * kBlockPositions * 4 + 64 + 64) + kTilePositions * padded_width * 4 + 64;
}

/// Null when the build is for another architecture.
const AttentionKernels* avx2_attention_kernels();
const AttentionKernels* avx512_attention_kernels();
const AttentionKernels* avx512_bf16_attention_kernels();

/// Those of an instruction set, null for Isa::Reference. AVX-512 takes BF16 dots where the CPU has them.
const AttentionKernels* attention_kernels(Isa isa);

/// As attention(); null: the plain form.
void attention_with(const AttentionKernels* kernels, const AttentionProblem& problem, std::byte* workspace,
                    const ParallelFor& parallel_for);

}  // namespace puna::kernels
