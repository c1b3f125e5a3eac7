// A sequence in the paged cache, for the tests of the cache and of attention.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention/cache.h"

namespace puna::kernels {

constexpr CacheType kTypes[] = {CacheType::Float32, CacheType::Bfloat16, CacheType::Int8};

inline std::string name_of(CacheType type) {
  return type == CacheType::Float32 ? "FP32" : type == CacheType::Bfloat16 ? "BF16" : "INT8";
}

struct Aligned {
  explicit Aligned(int64_t bytes) : held(bytes + kCacheAlignment) {}
  std::byte* get() {
    const auto at = reinterpret_cast<uintptr_t>(held.data());
    return held.data() + (kCacheAlignment - at % kCacheAlignment) % kCacheAlignment;
  }
  std::vector<std::byte> held;
};

/// A sequence in the cache. Blocks lie in a random order; what is not written is all ones, which no type takes for a
/// number: NaN values, NaN scales.
struct Sequence {
  CacheShape shape;
  int64_t first_position, length;  // positions from the first on
  std::vector<int32_t> blocks;
  std::vector<float> keys, values;  // [length, G, K]
  Aligned key_pool, value_pool;

  Sequence(const CacheShape& s, int64_t first, int64_t n, unsigned seed)
      : shape(s),
        first_position(first),
        length(n),
        blocks((n + s.block_size - 1) / s.block_size),
        keys(n * s.kv_heads * s.width),
        values(keys.size()),
        key_pool(static_cast<int64_t>(blocks.size()) * cache_layout(s).block_bytes),
        value_pool(static_cast<int64_t>(blocks.size()) * cache_layout(s).block_bytes) {
    std::mt19937 random(seed);
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), random);
    std::normal_distribution<float> normal(0, 1);
    for (float& value : keys) value = normal(random);
    for (float& value : values) value = normal(random);
    write();
  }

  CachePool pool() { return {key_pool.get(), value_pool.get()}; }
  BlockTable table() const { return {blocks.data(), first_position}; }

  void write() {
    std::fill(key_pool.held.begin(), key_pool.held.end(), std::byte{0xFF});
    std::fill(value_pool.held.begin(), value_pool.held.end(), std::byte{0xFF});
    const int64_t stride = shape.kv_heads * shape.width;
    write_kv(shape, pool(), table(), first_position, length, {keys.data(), values.data(), stride, stride, false});
  }
};

}  // namespace puna::kernels
