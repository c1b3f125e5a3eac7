// What an instruction set gives to matmul(): the product of one tile of 16 outputs with a few rows, and quantisation.
#pragma once

#include <cstdint>

#include "kernels/quantized/matmul.h"

namespace puna::kernels {

/// A tile of packed weights and a panel of `rows` rows, interleaved so that a kernel reads both front to back.
struct TileProblem {
  int64_t blocks, group;
  const uint8_t* quants;        // as PackedLayout says, as the two below; of 4 or 8 bits
  const uint16_t* scales;       // null with channel_scales
  const uint16_t* next_scales;  // of the next tile, to be asked for ahead; it may not exist
  const float* channel_scales;  // [16] or null
  const uint8_t* zeros;         // null without
  const int8_t* x;              // [blocks, group / 4, rows, 4]
  const float* row_scales;      // [ceil(blocks * group / kRowGroup), rows]
  const int32_t* dot_starts;    // [blocks, rows] minus the sum of a row's values; without zeros, times 2^(bits - 1)
};

struct TileKernels {
  int most_rows;  // `tile` takes from 1 to that many
  /// out [rows, 16].
  void (*tile)(int bits, int rows, const TileProblem& problem, float* out);
  int64_t (*dots)(int64_t rounds);  // as run_int8_dots()
  /// Quants of a tile, 2 or 3 bits, to the places that they have with 4 bits, whose tile kernel takes them.
  void (*widen)(int bits, int64_t padded_k, const uint8_t* quants, uint8_t* nibbles);
  /// As quantize_rows().
  void (*quantize_f32)(const float* x, int64_t stride, int64_t k, int64_t begin, int64_t end,
                       const QuantizedRows& rows);
  void (*quantize_bf16)(const uint16_t* x, int64_t stride, int64_t k, int64_t begin, int64_t end,
                        const QuantizedRows& rows);
  void (*quantize_swiglu)(const float* gate, const float* up, int64_t stride, int64_t k, int64_t begin, int64_t end,
                          const QuantizedRows& rows);
  /// As swiglu_rows().
  void (*swiglu_bf16)(const float* gate, const float* up, int64_t stride, int64_t k, int64_t begin, int64_t end,
                      uint16_t* out);
};

/// Null when the build is for another architecture.
const TileKernels* reference_tile_kernels();
const TileKernels* avx2_tile_kernels();
const TileKernels* avx512_vnni_tile_kernels();

}  // namespace puna::kernels
