// The paged cache of keys and values: blocks of positions that any sequence may hold, and how their bits lie.
// Only write_kv(), read_kv() and attention() look inside a block; others count, copy and compare whole blocks.
#pragma once

#include <cstddef>
#include <cstdint>

namespace puna::kernels {

/// Int8: one FP32 scale for each position and head, of keys and of values: largest magnitude / 127.
enum class CacheType : uint8_t { Float32, Bfloat16, Int8 };

struct CacheShape {
  CacheType type = CacheType::Bfloat16;
  int64_t kv_heads;         // G
  int64_t width;            // K, any from 1
  int64_t block_size = 64;  // positions of a block, a multiple of 16; long contexts are read faster with 64 and more
};

/// A block of keys is [G, block_size / 16] tiles of 16 positions, and so is a block of values, in a pool of its own:
///   keys    [padded_width / c, 16, c]; INT8 as bytes of q + 128
///   values  for each 64 of the padded width, the last ones maybe fewer: [16 / c, 64, c]; INT8 as signed bytes
///   scales  [16] FP32 at the end of the tile, INT8 only
/// where c values fill four bytes: 1 of FP32, 2 of BF16, 4 of INT8. Widths are padded to whole 16 by zeros.
struct CacheLayout {
  int64_t padded_width;
  int64_t tile_bytes;   // a multiple of 64
  int64_t block_bytes;  // of keys, and as many of values
};
inline constexpr int64_t kTilePositions = 16;
inline constexpr int64_t kValueColumns = 64;
inline constexpr int64_t kCacheAlignment = 64;  // of pools, in bytes

CacheLayout cache_layout(const CacheShape& shape);

/// The blocks of a layer; block b begins at b * block_bytes. Aligned. Pages of 2 MB make long contexts faster.
struct CachePool {
  std::byte* keys;
  std::byte* values;
};

/// A sequence's blocks: blocks[i] holds positions first_position + i * block_size and on.
struct BlockTable {
  const int32_t* blocks;
  int64_t first_position = 0;  // a multiple of block_size; where the chunk of a chunked layer starts, rounded down
};

/// FP32 or BF16 bits: row r of head g is at r * stride + g * K, in elements.
struct KvRows {
  const void* keys;
  const void* values;
  int64_t key_stride, value_stride;
  bool bf16;
};

/// Stores `count` rows as positions `begin` and on. Rounds to nearest, ties to even; an INT8 row with a value that is
/// not finite gets the scale NaN. Rows of positions that others write at the same time do not disturb each other.
void write_kv(const CacheShape& shape, const CachePool& pool, const BlockTable& table, int64_t begin, int64_t count,
              const KvRows& rows);

/// keys, values [count, G, K] of positions `begin` and on, exact.
void read_kv(const CacheShape& shape, const CachePool& pool, const BlockTable& table, int64_t begin, int64_t count,
             float* keys, float* values);

}  // namespace puna::kernels
