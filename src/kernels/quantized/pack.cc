#include <bit>
#include <cstring>

#include "base/error.h"
#include "kernels/quantized/float_tile.h"
#include "kernels/quantized/matmul.h"
#include "kernels/quantized/rounding.h"

namespace puna::kernels {
namespace {

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

struct Source {
  const WeightShape& shape;
  const int8_t* q;
  const float* scales;
  const int8_t* zeros;
  int64_t groups;
  int offset;  // what makes q unsigned

  int8_t zero(int64_t n, int64_t block) const {
    return zeros && n < shape.n ? zeros[n * groups + (groups == 1 ? 0 : block)] : int8_t{0};
  }
  /// The unsigned weight; padding has the value 0, which is q = zero.
  uint8_t quant(int64_t n, int64_t k) const {
    const int8_t value = n < shape.n && k < shape.k ? q[n * shape.k + k] : zero(n, k / shape.format.group);
    return static_cast<uint8_t>(value + offset);
  }
};

void check_range(const Source& source) {
  if (source.shape.format.bits == 8) return;
  const auto check = [&source](const int8_t* values, int64_t count, const char* what) {
    const int end = source.offset;
    for (int64_t i = 0; i < count; ++i) {
      PUNA_CHECK(values[i] >= -end && values[i] < end, "INT{} {} {} at {}", source.shape.format.bits, what, values[i],
                 i);
    }
  };
  check(source.q, source.shape.n * source.shape.k, "weight");
  if (source.zeros) check(source.zeros, source.shape.n * source.groups, "zero point");
}

/// Sets the quant of place k of 32; `out` is the output's first byte of their first 64.
template <int kBits>
void put(int k, uint8_t quant, uint8_t* out) {
  const int quad = k / 4, nibble = quad % 2 * 4;
  out += k % 4;
  if (kBits == 8) {
    out[64 * quad] = quant;
  } else if (kBits == 4) {
    out[64 * (quad / 2)] |= static_cast<uint8_t>(quant << nibble);
  } else {
    out[64 * (quad / 4)] |= static_cast<uint8_t>((quant & 3) << (nibble + quad / 2 % 2 * 2));
    if (kBits == 3) out[128] |= static_cast<uint8_t>(quant >> 2 << (nibble + quad / 2));
  }
}

template <int kBits>
void pack_quants(const Source& source, int64_t first, int64_t padded_k, uint8_t* out) {
  for (int64_t k = 0; k < padded_k; k += 32, out += 64 * kBits) {
    for (int64_t n = 0; n < kTileOutputs; ++n) {
      for (int i = 0; i < 32; ++i) put<kBits>(i, source.quant(first + n, k + i), out + 4 * n);
    }
  }
}

void pack_tile(const Source& source, const PackedLayout& layout, int64_t first, std::byte* out) {
  const WeightFormat& format = source.shape.format;
  const auto pack = format.bits == 2   ? pack_quants<2>
                    : format.bits == 3 ? pack_quants<3>
                    : format.bits == 4 ? pack_quants<4>
                                       : pack_quants<8>;
  pack(source, first, layout.padded_k, reinterpret_cast<uint8_t*>(out));
  for (int64_t n = first; n < first + kTileOutputs; ++n) {
    const float* scales = n < source.shape.n ? source.scales + n * source.groups : nullptr;
    if (format.channel_scales) {
      const float scale = scales ? scales[0] : 0;
      std::memcpy(out + layout.scales_offset + (n - first) * sizeof(float), &scale, sizeof(scale));
    }
    for (int64_t b = 0; b < layout.blocks; ++b) {
      const int64_t at = b * kTileOutputs + n - first;
      if (!format.channel_scales) {
        const uint16_t bits = bf16_from_float(scales ? scales[b] : 0);
        std::memcpy(out + layout.scales_offset + at * sizeof(bits), &bits, sizeof(bits));
      }
      if (format.zeros) {
        out[layout.zeros_offset + at] = static_cast<std::byte>(source.zero(n, b) + source.offset);
      }
    }
  }
}

}  // namespace

PackedLayout packed_layout(const WeightShape& shape) {
  const WeightFormat& format = shape.format;
  if (format.floats) return float_layout(shape);
  PUNA_CHECK(shape.n > 0 && shape.k > 0, "a weight of {} by {}", shape.n, shape.k);
  PUNA_CHECK((format.bits >= 2 && format.bits <= 4) || format.bits == 8, "{} bits", format.bits);
  PUNA_CHECK(format.group == 32 || format.group == 128, "groups of {}", format.group);
  PackedLayout layout;
  layout.tiles = round_up(shape.n, kTileOutputs) / kTileOutputs;
  layout.padded_k = round_up(shape.k, format.group);
  layout.blocks = layout.padded_k / format.group;
  layout.scales_offset = layout.padded_k * kTileOutputs * format.bits / 8;
  layout.zeros_offset = layout.scales_offset + kTileOutputs * (format.channel_scales ? 4 : 2 * layout.blocks);
  layout.tile_bytes =
      round_up(layout.zeros_offset + (format.zeros ? kTileOutputs * layout.blocks : 0), kPackedAlignment);
  layout.row_bytes = layout.padded_k + row_layout(layout.padded_k).scales * static_cast<int64_t>(sizeof(float)) +
                     layout.blocks * static_cast<int64_t>(sizeof(int32_t));
  layout.total_bytes = layout.tiles * layout.tile_bytes;
  return layout;
}

int64_t packed_bytes(const WeightShapes& shapes) {
  int64_t bytes = 0;
  for (int64_t i = 0; i < shapes.count(); ++i) bytes += packed_layout(shapes[i]).total_bytes;
  return bytes;
}

void pack_weights(const WeightShape& shape, const int8_t* q, const float* scales, const int8_t* zeros,
                  std::byte* packed) {
  if (shape.format == WeightFormat::e4m3()) return pack_floats(shape, q, shape.k, 1, scales, packed);
  const PackedLayout layout = packed_layout(shape);
  PUNA_CHECK((zeros != nullptr) == shape.format.zeros, "zero points given: {}", zeros != nullptr);
  PUNA_CHECK(std::bit_cast<uintptr_t>(packed) % kPackedAlignment == 0, "packed weights are not aligned");
  const Source source = {
      shape, q, scales, zeros, shape.format.channel_scales ? 1 : layout.blocks, 1 << (shape.format.bits - 1)};
  check_range(source);
  std::memset(packed, 0, static_cast<size_t>(layout.total_bytes));
  for (int64_t t = 0; t < layout.tiles; ++t) {
    pack_tile(source, layout, t * kTileOutputs, packed + t * layout.tile_bytes);
  }
}

}  // namespace puna::kernels
