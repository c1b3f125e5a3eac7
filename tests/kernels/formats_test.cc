// Stored formats against what the reference libraries make of the same bits; see make_block_fixtures.py.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/json.h"
#include "kernels/formats/floats.h"
#include "kernels/formats/gguf_blocks.h"
#include "kernels/formats/packed_integers.h"

namespace puna::kernels {
namespace {

// The fixture's arrays as raw bytes and shapes. This folder may not use io's reader.
class Fixture {
 public:
  Fixture() {
    std::ifstream in(std::string(PUNA_SOURCE_DIR) + "/tests/golden/kernels/blocks.safetensors", std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(in), {});
    uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, bytes_.data(), 8);
    header_ = parse_json(std::string_view(bytes_).substr(8, header_bytes), "blocks.safetensors");
    data_ = 8 + header_bytes;
  }

  template <typename T>
  std::vector<T> array(const std::string& name) const {
    const Json& offsets = header_.at(name).at("data_offsets");
    const size_t begin = offsets[0], end = offsets[1];
    std::vector<T> values((end - begin) / sizeof(T));
    std::memcpy(values.data(), bytes_.data() + data_ + begin, end - begin);
    return values;
  }

  std::vector<int64_t> shape(const std::string& name) const { return header_.at(name).at("shape"); }

 private:
  std::string bytes_;
  Json header_;
  size_t data_ = 0;
};

testing::AssertionResult same_bits(const std::vector<float>& actual, const std::vector<float>& expected) {
  if (actual.size() != expected.size()) return testing::AssertionFailure() << "sizes differ";
  for (size_t i = 0; i < actual.size(); ++i) {
    if (std::isnan(actual[i]) && std::isnan(expected[i])) continue;
    if (std::bit_cast<uint32_t>(actual[i]) != std::bit_cast<uint32_t>(expected[i]))
      return testing::AssertionFailure() << "at " << i << ": " << actual[i] << ", expected " << expected[i];
  }
  return testing::AssertionSuccess();
}

std::vector<float> dequantized(DType dtype, const std::vector<uint8_t>& src, size_t elements) {
  std::vector<float> dst(elements, -1e30f);
  dequantize_blocks(dtype, reinterpret_cast<const std::byte*>(src.data()), static_cast<int64_t>(elements), dst.data());
  return dst;
}

class StoredFormats : public testing::TestWithParam<const char*> {};

TEST_P(StoredFormats, EqualTheReferenceBitForBit) {
  const Fixture fixture;
  const std::string name = GetParam();
  const DType dtype = *dtype_from_name(name);
  const auto expected = fixture.array<float>(name + ".values");
  auto stored = fixture.array<uint8_t>(name + (dtype_is_block(dtype) ? ".blocks" : ".bits"));
  ASSERT_TRUE(can_dequantize(dtype));
  ASSERT_EQ(dtype_bytes(dtype, static_cast<int64_t>(expected.size())), static_cast<int64_t>(stored.size()));
  EXPECT_TRUE(same_bits(dequantized(dtype, stored, expected.size()), expected));
  // Mapped files promise no alignment.
  stored.insert(stored.begin(), 0);
  std::vector<float> unaligned(expected.size());
  dequantize_blocks(dtype, reinterpret_cast<const std::byte*>(stored.data() + 1), static_cast<int64_t>(expected.size()),
                    unaligned.data());
  EXPECT_TRUE(same_bits(unaligned, expected));
}

INSTANTIATE_TEST_SUITE_P(All, StoredFormats,
                         testing::Values("Q4_0", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "F16", "BF16", "F8_E4M3", "F8_E5M2"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Formats, PlainFloatsPassThrough) {
  const double doubles[] = {1.5, 1e300, -0.0};
  float out[3];
  dequantize_blocks(DType::F64, reinterpret_cast<const std::byte*>(doubles), 3, out);
  EXPECT_EQ(out[0], 1.5f);
  EXPECT_TRUE(std::isinf(out[1]));
  const float floats[] = {3, 4, 5};
  dequantize_blocks(DType::F32, reinterpret_cast<const std::byte*>(floats), 3, out);
  EXPECT_EQ(out[2], 5.f);
}

TEST(Formats, IntegersAndPartsOfBlocksAreBugsOfTheCaller) {
  EXPECT_FALSE(can_dequantize(DType::I32));
  float out[64];
  const std::byte src[256] = {};
  EXPECT_THROW(dequantize_blocks(DType::I32, src, 1, out), InternalError);
  EXPECT_THROW(dequantize_blocks(DType::Q8_0, src, 33, out), InternalError);
  EXPECT_THROW(dequantize_blocks(DType::F32, src, -1, out), InternalError);
}

TEST(Formats, HostileScalesPropagate) {
  std::vector<uint8_t> block(34, 1);
  block[0] = 0, block[1] = 0x7C;  // d = inf
  EXPECT_TRUE(std::isinf(dequantized(DType::Q8_0, block, 32)[0]));
  block[2] = 0;  // inf * 0
  EXPECT_TRUE(std::isnan(dequantized(DType::Q8_0, block, 32)[0]));
}

TEST(Formats, E4m3HasNoInfinity) {
  EXPECT_TRUE(std::isnan(f8e4m3_to_float(0x7F)));
  EXPECT_TRUE(std::isnan(f8e4m3_to_float(0xFF)));
  EXPECT_EQ(f8e4m3_to_float(0x7E), 448.f);
  EXPECT_TRUE(std::signbit(f8e4m3_to_float(0x80)));
}

class Int4 : public testing::TestWithParam<int> {};

TEST_P(Int4, UnpacksWhatCompressedTensorsPacked) {
  const Fixture fixture;
  for (const bool along_rows : {false, true}) {
    const std::string name = fmt::format("{}.{}", along_rows ? "int4_rows" : "int4", GetParam());
    const auto packed = fixture.array<uint8_t>(name + ".packed");
    const auto expected = fixture.array<int8_t>(name + ".values");
    const auto shape = fixture.shape(name + ".values"), words = fixture.shape(name + ".packed");
    ASSERT_EQ(words[along_rows ? 0 : 1], packed_words(4, shape[along_rows ? 0 : 1]));
    std::vector<int8_t> q(expected.size(), 99);
    const auto* src = reinterpret_cast<const std::byte*>(packed.data());
    if (along_rows) {
      for (int64_t r = 0; r < shape[0]; ++r)
        for (int64_t c = 0; c < shape[1]; ++c) q[r * shape[1] + c] = packed_integer(src + 4 * c, shape[1], 4, r);
    } else {
      unpack_integers(src, 4, shape[0], shape[1], q.data());
    }
    EXPECT_EQ(q, expected) << name;
  }
}

// Bits 0 to 2 are the first value, 3 to 5 the next: the 11th lies in two words.
TEST(PackedIntegers, OfThreeBitsFollowOneAnother) {
  std::vector<int8_t> expected;
  for (int i = 0; i < 45; ++i) expected.push_back(static_cast<int8_t>(i * i % 8 - 4));
  ASSERT_EQ(packed_words(3, 45), 5);
  EXPECT_EQ(packed_words(3, 32), 3);
  EXPECT_EQ(packed_words(2, 17), 2);
  std::vector<uint8_t> bytes(2 * 20 + 1);
  for (size_t i = 0; i < 3 * expected.size(); ++i)
    for (const size_t row : {0, 1})  // unaligned
      bytes[1 + 20 * row + i / 8] |= static_cast<uint8_t>(((expected[i / 3] + 4) >> (i % 3) & 1) << (i % 8));
  std::vector<int8_t> q(2 * 45, 99);
  unpack_integers(reinterpret_cast<const std::byte*>(bytes.data() + 1), 3, 2, 45, q.data());
  for (size_t i = 0; i < q.size(); ++i) EXPECT_EQ(q[i], expected[i % 45]) << i;
}

// 13: the last word is partly used.
INSTANTIATE_TEST_SUITE_P(Cols, Int4, testing::Values(8, 13, 32));

}  // namespace
}  // namespace puna::kernels
