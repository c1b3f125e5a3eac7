// The paged cache gives back what was written, and its blocks have the sizes that its header says.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"
#include "kernels/formats/floats.h"
#include "kernels/quantized/rounding.h"
#include "tests/kernels/paged_cache.h"

namespace puna::kernels {
namespace {

TEST(PagedCache, GivesBackWhatWasWritten) {
  for (CacheType type : kTypes) {
    for (int64_t width : {1, 16, 24, 128}) {
      for (int64_t block_size : {16, 48}) {
        Sequence s({type, 3, width, block_size}, 2 * block_size, 100, 1);
        std::vector<float> keys(90 * 3 * width), values(keys.size());
        read_kv(s.shape, s.pool(), s.table(), s.first_position + 7, 90, keys.data(), values.data());
        for (const auto& [got, all] : {std::pair(&keys, &s.keys), std::pair(&values, &s.values)}) {
          const float* expected = all->data() + 7 * 3 * width;
          for (int64_t row = 0; row < 90 * 3; ++row) {
            float most = 0;
            for (int64_t d = 0; d < width; ++d) most = std::max(most, std::abs(expected[row * width + d]));
            for (int64_t d = 0; d < width; ++d) {
              const float value = expected[row * width + d];
              const float bound = type == CacheType::Float32    ? 0
                                  : type == CacheType::Bfloat16 ? std::abs(value) / 256
                                                                : most / 253;
              ASSERT_LE(std::abs((*got)[row * width + d] - value), bound) << name_of(type) << " row " << row;
            }
          }
        }
      }
    }
  }
}

TEST(PagedCache, TakesBf16RowsWithStrides) {
  Sequence s({CacheType::Bfloat16, 2, 24, 16}, 0, 20, 1);
  std::vector<uint16_t> rows(5 * 200);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<uint16_t>(0x3F80 + i);
  write_kv(s.shape, s.pool(), s.table(), 14, 5, {rows.data(), rows.data() + 60, 150, 200, true});
  std::vector<float> keys(20 * 48), values(keys.size());
  read_kv(s.shape, s.pool(), s.table(), 0, 20, keys.data(), values.data());
  for (int64_t row = 0; row < 5; ++row) {
    for (int64_t i = 0; i < 48; ++i) {
      ASSERT_EQ(keys[(14 + row) * 48 + i], bf16_to_float(rows[row * 150 + i]));
      ASSERT_EQ(values[(14 + row) * 48 + i], bf16_to_float(rows[60 + row * 200 + i]));
    }
  }
  EXPECT_EQ(keys[14 * 48 - 1], bf16_to_float(bf16_from_float(s.keys[14 * 48 - 1])));
  EXPECT_EQ(values[19 * 48], bf16_to_float(bf16_from_float(s.values[19 * 48])));
}

TEST(PagedCache, RowsThatAreNotFiniteAreNan) {
  Sequence s({CacheType::Int8, 1, 16, 16}, 0, 3, 1);
  s.keys[16] = std::numeric_limits<float>::infinity();
  std::fill_n(s.keys.begin() + 32, 16, 1e-37f);
  s.write();
  std::vector<float> keys(48), values(48);
  read_kv(s.shape, s.pool(), s.table(), 0, 3, keys.data(), values.data());
  EXPECT_FALSE(std::isnan(keys[0]));
  EXPECT_TRUE(std::isnan(keys[16]) && std::isnan(keys[31]));
  EXPECT_EQ(keys[32], 0);
}

TEST(CacheLayout, SizesAreThoseOfTheHeader) {
  EXPECT_EQ(cache_layout({CacheType::Float32, 8, 128, 16}).tile_bytes, 16 * 128 * 4);
  EXPECT_EQ(cache_layout({CacheType::Bfloat16, 8, 128, 32}).block_bytes, 8 * 32 * 128 * 2);
  const CacheLayout int8 = cache_layout({CacheType::Int8, 2, 100, 16});
  EXPECT_EQ(int8.padded_width, 112);
  EXPECT_EQ(int8.tile_bytes, 16 * 112 + 64);
}

}  // namespace
}  // namespace puna::kernels
