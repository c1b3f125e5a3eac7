// Single values of the cache's tiles, as CacheLayout says; what is fast has its own loops.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/attention/cache.h"
#include "kernels/formats/floats.h"

namespace puna::kernels {

/// Bytes from the start of a pool to the tile of a table's slot (position - first_position).
inline int64_t tile_offset(const CacheShape& shape, const CacheLayout& layout, int32_t block, int64_t head,
                           int64_t slot) {
  const int64_t tiles = shape.block_size / kTilePositions;
  return block * layout.block_bytes + (head * tiles + slot % shape.block_size / kTilePositions) * layout.tile_bytes;
}

template <CacheType kType>
using CacheValue = std::conditional_t<kType == CacheType::Float32, float,
                                      std::conditional_t<kType == CacheType::Bfloat16, uint16_t, uint8_t>>;

template <CacheType kType>
struct TileOf {
  using Value = CacheValue<kType>;
  static constexpr int64_t kTogether = 4 / sizeof(Value);

  std::byte* bytes;
  int64_t width, padded_width;

  Value& at(bool key, int64_t slot, int64_t d) const {
    Value* values = reinterpret_cast<Value*>(bytes);
    if (key) return values[(d / kTogether * kTilePositions + slot) * kTogether + d % kTogether];
    const int64_t first = d / kValueColumns * kValueColumns, left = padded_width - first;
    const int64_t columns = left < kValueColumns ? left : kValueColumns;
    return values[first * kTilePositions + (slot / kTogether * columns + d - first) * kTogether + slot % kTogether];
  }
  float* scales() const { return reinterpret_cast<float*>(bytes + padded_width * kTilePositions); }

  float value(bool key, int64_t slot, int64_t d) const {
    const Value stored = at(key, slot, d);
    if constexpr (kType == CacheType::Float32) {
      return stored;
    } else if constexpr (kType == CacheType::Bfloat16) {
      return bf16_to_float(stored);
    } else {
      return static_cast<float>(key ? stored - 128 : static_cast<int8_t>(stored)) * scales()[slot];
    }
  }
};

/// Calls work.template operator()<type>().
template <typename F>
void with_cache_type(CacheType type, const F& work) {
  switch (type) {
    case CacheType::Float32:
      return work.template operator()<CacheType::Float32>();
    case CacheType::Bfloat16:
      return work.template operator()<CacheType::Bfloat16>();
    case CacheType::Int8:
      return work.template operator()<CacheType::Int8>();
  }
}

}  // namespace puna::kernels
