// The plain form of the tile kernel: oracle of the others, and what runs where none of them does.
#include <bit>
#include <cmath>

#include "kernels/formats/floats.h"
#include "kernels/quantized/matmul.h"
#include "kernels/quantized/rows.inl"
#include "kernels/quantized/tile.h"

namespace puna::kernels {
namespace {

int32_t weight_at(const TileProblem& p, int bits, int64_t block, int64_t k, int64_t n) {
  if (bits == 8) return p.quants[((block * p.group + k) / 4 * kTileOutputs + n) * 4 + k % 4];
  const uint8_t pair = p.quants[((block * p.group + k) / 8 * kTileOutputs + n) * 4 + k % 4];
  return k % 8 < 4 ? pair & 15 : pair >> 4;
}

void tile(int bits, int rows, const TileProblem& p, float* out) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t n = 0; n < kTileOutputs; ++n) {
      float sum = 0, span = 0;
      for (int64_t b = 0; b < p.blocks; ++b) {
        const int8_t* x = p.x + b * p.group * rows;
        int32_t dot = p.dot_starts[b * rows + i] * (p.zeros ? p.zeros[b * kTileOutputs + n] : 1);
        for (int64_t k = 0; k < p.group; ++k) dot += weight_at(p, bits, b, k, n) * x[(k / 4 * rows + i) * 4 + k % 4];
        const auto value = static_cast<float>(dot);
        span = p.scales ? std::fma(value, bf16_to_float(p.scales[b * kTileOutputs + n]), span) : span + value;
        if (const int64_t end = (b + 1) * p.group; end % kRowGroup == 0 || b + 1 == p.blocks) {
          sum = std::fma(span, p.row_scales[(end - 1) / kRowGroup * rows + i], sum);
          span = 0;
        }
      }
      out[i * kTileOutputs + n] = p.channel_scales ? sum * p.channel_scales[n] : sum;
    }
  }
}

int64_t dots(int64_t rounds) {
  volatile int32_t weight = 3;
  int32_t sums[4] = {};
  for (int64_t i = 0; i < rounds; ++i) {
    for (int32_t& sum : sums) sum += weight * static_cast<int8_t>(i);
  }
  weight = sums[0] + sums[1] + sums[2] + sums[3];
  return rounds * 4 * 2;
}

constexpr TileKernels kKernels = {4,          tile, dots, widen, quantize<float>, quantize<uint16_t>, quantize_swiglu,
                                  swiglu_bf16};

}  // namespace

const TileKernels* reference_tile_kernels() { return &kKernels; }

}  // namespace puna::kernels
