#include "kernels/attention/cache.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"
#include "kernels/attention/tile_access.h"
#include "kernels/formats/floats.h"
#include "kernels/quantized/rounding.h"

namespace puna::kernels {
namespace {

/// Row `row` of a head as floats.
void load_row(const void* rows, bool bf16, int64_t at, int64_t width, float* to) {
  for (int64_t d = 0; d < width; ++d) {
    to[d] = bf16 ? bf16_to_float(static_cast<const uint16_t*>(rows)[at + d]) : static_cast<const float*>(rows)[at + d];
  }
}

template <CacheType kType>
void store_row(const TileOf<kType>& tile, bool key, int64_t slot, const float* row) {
  if constexpr (kType == CacheType::Int8) {
    float largest = 0;
    bool finite = true;
    for (int64_t d = 0; d < tile.width; ++d) {
      finite = finite && std::isfinite(row[d]);
      largest = std::max(largest, std::abs(row[d]));
    }
    const bool zero = !finite || largest < 1e-36f;  // below, 127 / magnitude might overflow
    tile.scales()[slot] = finite ? (zero ? 0 : largest / 127) : std::numeric_limits<float>::quiet_NaN();
    const float inverse = zero ? 0 : 127 / largest;
    for (int64_t d = 0; d < tile.padded_width; ++d) {
      const float value = zero || d >= tile.width ? 0 : std::nearbyint(row[d] * inverse);
      tile.at(key, slot, d) = static_cast<uint8_t>(static_cast<int>(value) + (key ? 128 : 0));
    }
  } else {
    for (int64_t d = 0; d < tile.padded_width; ++d) {
      const float value = d < tile.width ? row[d] : 0;
      if constexpr (kType == CacheType::Bfloat16) {
        tile.at(key, slot, d) = bf16_from_float(value);
      } else {
        tile.at(key, slot, d) = value;
      }
    }
  }
}

/// Calls work(key or value tile, whether keys, head, slot, row) for each row, head and of keys and values.
template <CacheType kType, typename F>
void for_rows(const CacheShape& shape, const CachePool& pool, const BlockTable& table, int64_t begin, int64_t count,
              const F& work) {
  const CacheLayout layout = cache_layout(shape);
  PUNA_CHECK(begin >= table.first_position, "position {} before the first of the blocks, {}", begin,
             table.first_position);
  for (int64_t row = 0; row < count; ++row) {
    const int64_t slot = begin + row - table.first_position;
    for (int64_t head = 0; head < shape.kv_heads; ++head) {
      const int64_t at = tile_offset(shape, layout, table.blocks[slot / shape.block_size], head, slot);
      work(TileOf<kType>{pool.keys + at, shape.width, layout.padded_width}, true, head, slot % kTilePositions, row);
      work(TileOf<kType>{pool.values + at, shape.width, layout.padded_width}, false, head, slot % kTilePositions, row);
    }
  }
}

}  // namespace

CacheLayout cache_layout(const CacheShape& shape) {
  PUNA_CHECK(shape.kv_heads > 0 && shape.width > 0, "{} heads of {}", shape.kv_heads, shape.width);
  PUNA_CHECK(shape.block_size > 0 && shape.block_size % kTilePositions == 0, "blocks of {} positions",
             shape.block_size);
  CacheLayout layout = {};
  layout.padded_width = (shape.width + 15) / 16 * 16;
  const int64_t value_bytes = shape.type == CacheType::Float32 ? 4 : shape.type == CacheType::Bfloat16 ? 2 : 1;
  const int64_t scale_bytes = shape.type == CacheType::Int8 ? kTilePositions * static_cast<int64_t>(sizeof(float)) : 0;
  layout.tile_bytes = layout.padded_width * kTilePositions * value_bytes + scale_bytes;
  layout.block_bytes = layout.tile_bytes * (shape.block_size / kTilePositions) * shape.kv_heads;
  return layout;
}

void write_kv(const CacheShape& shape, const CachePool& pool, const BlockTable& table, int64_t begin, int64_t count,
              const KvRows& rows) {
  std::vector<float> row_K(shape.width);
  with_cache_type(shape.type, [&]<CacheType kType>() {
    for_rows<kType>(shape, pool, table, begin, count,
                    [&](const TileOf<kType>& tile, bool key, int64_t head, int64_t slot, int64_t row) {
                      const int64_t stride = key ? rows.key_stride : rows.value_stride;
                      load_row(key ? rows.keys : rows.values, rows.bf16, row * stride + head * shape.width, shape.width,
                               row_K.data());
                      store_row<kType>(tile, key, slot, row_K.data());
                    });
  });
}

void read_kv(const CacheShape& shape, const CachePool& pool, const BlockTable& table, int64_t begin, int64_t count,
             float* keys, float* values) {
  with_cache_type(shape.type, [&]<CacheType kType>() {
    for_rows<kType>(shape, pool, table, begin, count,
                    [&](const TileOf<kType>& tile, bool key, int64_t head, int64_t slot, int64_t row) {
                      float* to = (key ? keys : values) + (row * shape.kv_heads + head) * shape.width;
                      for (int64_t d = 0; d < shape.width; ++d) to[d] = tile.value(key, slot, d);
                    });
  });
}

}  // namespace puna::kernels
