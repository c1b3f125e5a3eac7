// The plain form of the tiles of floats: oracle of the others, and what runs where none of them does.
#include <cmath>
#include <cstring>

#include "kernels/formats/floats.h"
#include "kernels/quantized/float_tile.h"

namespace puna::kernels {
namespace {

struct Bf16 {
  static float weight(const std::byte* weights, int64_t pair, int64_t n, int64_t second) {
    uint16_t bits;
    std::memcpy(&bits, weights + ((pair * kTileOutputs + n) * 2 + second) * 2, sizeof(bits));
    return bf16_to_float(bits);
  }
};

struct E4m3 {
  static float weight(const std::byte* weights, int64_t pair, int64_t n, int64_t second) {
    const int64_t at = pair / 2 * 64 + n / 4 * 16 + pair % 2 * 8 + n % 4 * 2 + second;
    return f8e4m3_to_float(static_cast<uint8_t>(weights[at]));
  }
};

template <typename Weights>
void tile(int rows, const FloatTileProblem& p, float* out) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t n = 0; n < kTileOutputs; ++n) {
      float chains[2] = {};
      for (int64_t pair = 0; pair < p.padded_k / 2; ++pair) {
        const uint16_t* x = p.x + (pair * rows + i) * 2;
        float& sum = chains[pair % 2];
        for (const int64_t second : {1, 0})
          sum = std::fma(Weights::weight(p.weights, pair, n, second), bf16_to_float(x[second]), sum);
      }
      const float sum = chains[0] + chains[1];
      out[i * kTileOutputs + n] = p.scales ? sum * p.scales[n] : sum;
    }
  }
}

int64_t dots(int64_t rounds) {
  volatile float weight = 3;
  float sums[4] = {};
  for (int64_t i = 0; i < rounds; ++i) {
    for (float& sum : sums) sum += weight * static_cast<float>(i);
  }
  weight = sums[0] + sums[1] + sums[2] + sums[3];
  return rounds * 4 * 2;
}

constexpr FloatTileKernels kKernels = {"reference", 4, tile<Bf16>, tile<E4m3>, dots};

}  // namespace

const FloatTileKernels* reference_float_tile_kernels() { return &kKernels; }

}  // namespace puna::kernels
