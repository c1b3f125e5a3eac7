// Tiles of BF16 and E4M3 weights times rows of BF16. matmul.h says how they lie in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kernels/quantized/matmul.h"

namespace puna::kernels {

/// A tile of 16 outputs and a panel of `rows` rows, interleaved so that a kernel reads both front to back.
struct FloatTileProblem {
  int64_t padded_k;          // a multiple of 4
  const std::byte* weights;  // as PackedLayout says
  const float* scales;       // [16], or null
  const uint16_t* x;         // [padded_k / 2, rows, 2]
};

/// An output is the sum of two chains, of the pairs of K with even and with odd numbers. A chain takes a pair's second
/// product, then its first, each by an FMA in FP32. All have these bits but for what vdpbf16ps takes as 0: numbers of a
/// magnitude under 2^-126, as inputs and as sums.
struct FloatTileKernels {
  std::string_view name;
  int most_rows;  // `bf16` and `e4m3` take from 1 to that many
  /// out [rows, 16].
  void (*bf16)(int rows, const FloatTileProblem& problem, float* out);
  void (*e4m3)(int rows, const FloatTileProblem& problem, float* out);
  int64_t (*dots)(int64_t rounds);  // as run_bf16_dots()
};

/// Null when the build is for another architecture.
const FloatTileKernels* reference_float_tile_kernels();
const FloatTileKernels* avx2_float_tile_kernels();
const FloatTileKernels* avx512_bf16_float_tile_kernels();

/// Of an available instruction set: with Avx512Vnni those of AVX-512 BF16 where the CPU has them, and VBMI for E4M3.
const FloatTileKernels& float_tile_kernels(Isa isa);

/// packed_layout() of a format with floats.
PackedLayout float_layout(const WeightShape& shape);

}  // namespace puna::kernels
