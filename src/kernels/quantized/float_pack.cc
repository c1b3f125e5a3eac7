#include <algorithm>
#include <bit>
#include <cstring>

#include "base/error.h"
#include "kernels/formats/floats.h"
#include "kernels/quantized/float_tile.h"

namespace puna::kernels {
namespace {

/// Values of K in a step of the layout, and where the value of output n of a tile lies in it, in values.
constexpr int64_t kStep = 4;

int64_t place_in_step(bool e4m3, int64_t n, int64_t k) {
  return e4m3 ? n / 4 * 16 + k / 2 * 8 + n % 4 * 2 + k % 2 : k / 2 * 32 + n * 2 + k % 2;
}

/// All tiles step by step, so that inputs as well as outputs may be what lies together.
template <typename T>
void pack_values(const WeightShape& shape, const PackedLayout& layout, const T* values, int64_t output_stride,
                 int64_t input_stride, std::byte* packed) {
  int64_t places[kTileOutputs * kStep];
  for (int64_t n = 0; n < kTileOutputs; ++n) {
    for (int64_t j = 0; j < kStep; ++j) places[n * kStep + j] = place_in_step(sizeof(T) == 1, n, j);
  }
  for (int64_t k = 0; k < shape.k; k += kStep) {
    const int64_t inputs = std::min(kStep, shape.k - k);
    for (int64_t t = 0; t < layout.tiles; ++t) {
      const int64_t first = t * kTileOutputs, outputs = std::min(kTileOutputs, shape.n - first);
      T* to = reinterpret_cast<T*>(packed + t * layout.tile_bytes) + k * kTileOutputs;
      const T* from = values + first * output_stride + k * input_stride;
      for (int64_t n = 0; n < outputs; ++n) {
        for (int64_t j = 0; j < inputs; ++j) to[places[n * kStep + j]] = from[n * output_stride + j * input_stride];
      }
    }
  }
}

}  // namespace

PackedLayout float_layout(const WeightShape& shape) {
  const WeightFormat& format = shape.format;
  PUNA_CHECK(shape.n > 0 && shape.k > 0, "a weight of {} by {}", shape.n, shape.k);
  PUNA_CHECK(format == WeightFormat::bf16() || format == WeightFormat::e4m3(), "floats of {} bits", format.bits);
  PackedLayout layout = {};
  layout.tiles = (shape.n + kTileOutputs - 1) / kTileOutputs;
  layout.padded_k = (shape.k + kStep - 1) / kStep * kStep;
  layout.scales_offset = layout.zeros_offset = layout.padded_k * kTileOutputs * format.bits / 8;
  layout.tile_bytes = layout.scales_offset + (format.channel_scales ? kTileOutputs * 4 : 0);
  layout.row_bytes = layout.padded_k * 2;
  layout.total_bytes = layout.tiles * layout.tile_bytes;
  return layout;
}

void pack_floats(const WeightShape& shape, const void* values, int64_t output_stride, int64_t input_stride,
                 const float* scales, std::byte* packed) {
  const PackedLayout layout = float_layout(shape);
  const bool e4m3 = shape.format.bits == 8;
  PUNA_CHECK((scales != nullptr) == e4m3, "scales given: {}", scales != nullptr);
  PUNA_CHECK(std::bit_cast<uintptr_t>(packed) % kPackedAlignment == 0, "packed weights are not aligned");
  std::memset(packed, 0, static_cast<size_t>(layout.total_bytes));
  if (!e4m3)
    return pack_values(shape, layout, static_cast<const uint16_t*>(values), output_stride, input_stride, packed);
  pack_values(shape, layout, static_cast<const uint8_t*>(values), output_stride, input_stride, packed);
  for (int64_t n = 0; n < shape.n; ++n) {
    std::byte* tile = packed + n / kTileOutputs * layout.tile_bytes;
    std::memcpy(tile + layout.scales_offset + n % kTileOutputs * sizeof(float), scales + n, sizeof(float));
  }
}

void unpack_floats(const WeightShape& shape, const std::byte* packed, float* out) {
  const PackedLayout layout = float_layout(shape);
  const bool e4m3 = shape.format.bits == 8;
  for (int64_t n = 0; n < shape.n; ++n) {
    const std::byte* tile = packed + n / kTileOutputs * layout.tile_bytes;
    float scale = 1;
    if (e4m3) std::memcpy(&scale, tile + layout.scales_offset + n % kTileOutputs * sizeof(float), sizeof(float));
    for (int64_t k = 0; k < shape.k; ++k) {
      const int64_t at = k / kStep * kStep * kTileOutputs + place_in_step(e4m3, n % kTileOutputs, k % kStep);
      uint16_t bits = 0;
      std::memcpy(&bits, tile + at * (e4m3 ? 1 : 2), e4m3 ? 1 : 2);
      *out++ = e4m3 ? f8e4m3_to_float(static_cast<uint8_t>(bits)) * scale : bf16_to_float(bits);
    }
  }
}

}  // namespace puna::kernels
