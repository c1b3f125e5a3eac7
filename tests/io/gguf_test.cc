#include "io/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>

#include "base/error.h"
#include "tests/io/builders.h"

namespace puna::io {
namespace {

using test::as_bytes;
using test::gguf_image;
using test::gguf_pair;
using test::gguf_string;
using test::gguf_tensor;
using test::raw;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint32_t kF32Type = 0, kQ8Type = 8, kBf16Type = 30;
constexpr uint32_t kU8 = 0, kU32 = 4, kBool = 7, kString = 8, kArray = 9;

GgufFile parse(const std::string& image) { return parse_gguf(as_bytes(image), nullptr, "f"); }

std::string error_of(const std::string& image) {
  try {
    parse(image);
  } catch (const Error& e) {
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << "an error is one line";
    return e.what();
  }
  return "no error";
}

std::string error_of_tensor(const std::string& row, size_t data_bytes = 64) {
  return error_of(gguf_image({}, {row}, data_bytes));
}

std::string error_of_pair(const std::string& pair) { return error_of(gguf_image({pair}, {}, 0)); }

TEST(Gguf, EveryMetadataTypeIsRead) {
  const std::string numbers = raw<uint32_t>(5) + raw<uint64_t>(2) + raw<int32_t>(-1) + raw<int32_t>(7);
  const std::string nested = raw(kArray) + raw<uint64_t>(2) + raw(kBool) + raw<uint64_t>(1) + raw<uint8_t>(1) +
                             raw(kString) + raw<uint64_t>(1) + gguf_string("x");
  const Json metadata =
      parse(gguf_image({gguf_pair("u8", 0, raw<uint8_t>(255)), gguf_pair("i8", 1, raw<int8_t>(-1)),
                        gguf_pair("u16", 2, raw<uint16_t>(65535)), gguf_pair("i16", 3, raw<int16_t>(-2)),
                        gguf_pair("u32", 4, raw<uint32_t>(~0u)), gguf_pair("i32", 5, raw<int32_t>(-3)),
                        gguf_pair("f32", 6, raw(1.5f)), gguf_pair("bool", 7, raw<uint8_t>(1)),
                        gguf_pair("string", 8, gguf_string("s")), gguf_pair("array", 9, numbers),
                        gguf_pair("u64", 10, raw<uint64_t>(~0ull)), gguf_pair("i64", 11, raw<int64_t>(-4)),
                        gguf_pair("f64", 12, raw(2.5)), gguf_pair("nested", 9, nested)},
                       {}, 0))
          .metadata;
  EXPECT_EQ(metadata, Json::parse(R"({"u8":255,"i8":-1,"u16":65535,"i16":-2,"u32":4294967295,"i32":-3,"f32":1.5,
    "bool":true,"string":"s","array":[-1,7],"u64":18446744073709551615,"i64":-4,"f64":2.5,"nested":[[true],["x"]]})"));
}

TEST(Gguf, ShapesAreOutermostFirst) {
  const std::string image =
      gguf_image({}, {gguf_tensor("a", {2, 3}, kF32Type, 0), gguf_tensor("b", {32, 1}, kQ8Type, 32)}, 66);
  const GgufFile file = parse(image);
  const TensorView* a = file.tensors.find("a");
  ASSERT_NE(a, nullptr);
  EXPECT_THAT(a->shape, ElementsAre(3, 2));
  EXPECT_EQ(a->bytes.data(), as_bytes(image).data() + image.size() - 66);
  EXPECT_EQ(a->bytes.size(), 24u);
  const TensorView* b = file.tensors.find("b");
  EXPECT_EQ(b->dtype, DType::Q8_0);
  EXPECT_EQ(b->bytes.size(), 34u);
  EXPECT_EQ(std::to_integer<int>(b->bytes[0]), 32);
}

TEST(Gguf, VersionTwoAndAlignmentAreHonoured) {
  EXPECT_EQ(error_of(gguf_image({}, {}, 0, 2)), "no error");
  const auto with_alignment = [](uint32_t alignment) {
    return error_of(
        gguf_image({gguf_pair("general.alignment", kU32, raw(alignment))}, {gguf_tensor("a", {2}, kF32Type, 8)}, 16));
  };
  EXPECT_EQ(with_alignment(8), "no error");
  EXPECT_THAT(with_alignment(16), HasSubstr("no multiple of the alignment 16"));
  EXPECT_THAT(with_alignment(0), HasSubstr("general.alignment is 0"));
  EXPECT_THAT(with_alignment(24), HasSubstr("general.alignment is 24"));
  EXPECT_THAT(with_alignment(1u << 31), HasSubstr("general.alignment is"));
}

TEST(GgufErrors, NotGguf) {
  EXPECT_THAT(error_of("GGML1234"), HasSubstr("does not begin with 'GGUF'"));
  EXPECT_THAT(error_of("GG"), HasSubstr("truncated: the magic"));
}
TEST(GgufErrors, Versions) {
  EXPECT_THAT(error_of(gguf_image({}, {}, 0, 1)), HasSubstr("version 1, versions 2 and 3 are supported"));
  EXPECT_THAT(error_of(gguf_image({}, {}, 0, 0x03000000)), HasSubstr("big-endian"));
}
TEST(GgufErrors, AbsurdCounts) {
  EXPECT_THAT(error_of("GGUF" + raw<uint32_t>(3) + raw(~uint64_t{0}) + raw<uint64_t>(0)),
              HasSubstr("truncated: claims"));
  EXPECT_THAT(error_of("GGUF" + raw<uint32_t>(3) + raw<uint64_t>(0) + raw(uint64_t{1} << 63)), HasSubstr("claims 0"));
}
TEST(GgufErrors, TruncatedAnywhere) {
  const std::string image =
      gguf_image({gguf_pair("k", kString, gguf_string("value"))}, {gguf_tensor("a", {8}, kF32Type, 0)}, 32);
  ASSERT_EQ(error_of(image), "no error");
  for (size_t size = 0; size < image.size(); ++size)
    EXPECT_THAT(error_of(image.substr(0, size)), HasSubstr("truncated")) << size;
}
TEST(GgufErrors, Split) {
  EXPECT_THAT(error_of_pair(gguf_pair("split.count", 2, raw<uint16_t>(3))), HasSubstr("llama-gguf-split --merge"));
  EXPECT_EQ(error_of_pair(gguf_pair("split.count", 2, raw<uint16_t>(1))), "no error");
}
TEST(GgufErrors, DuplicateKey) {
  const std::string pair = gguf_pair("k", kU8, "1");
  EXPECT_THAT(error_of(gguf_image({pair, pair}, {}, 0)), HasSubstr("key 'k' is there twice"));
}
TEST(GgufErrors, DuplicateTensor) {
  EXPECT_THAT(error_of(gguf_image({}, {gguf_tensor("a", {8}, kF32Type, 0), gguf_tensor("a", {8}, kF32Type, 32)}, 64)),
              HasSubstr("tensor 'a' is there twice"));
}
TEST(GgufErrors, HostileMetadata) {
  EXPECT_THAT(error_of_pair(gguf_pair("k", 13, "")), HasSubstr("unknown type 13"));
  EXPECT_THAT(error_of_pair(gguf_pair("k", kBool, "\x02")), HasSubstr("is 2, expected 0 or 1"));
  EXPECT_THAT(error_of_pair(gguf_pair("k", kString, gguf_string("\xff"))), HasSubstr("is not UTF-8"));
  EXPECT_THAT(error_of_pair(gguf_pair("k", kString, raw(uint64_t{1} << 63))), HasSubstr("more than the limit"));
  EXPECT_THAT(error_of_pair(gguf_pair("k", kArray, raw(kU8) + raw(uint64_t{1} << 62))), HasSubstr("claims 4611686"));
  EXPECT_THAT(error_of_pair(gguf_pair("k", kArray, raw<uint32_t>(99) + raw<uint64_t>(0))),
              HasSubstr("unknown type 99"));
  EXPECT_THAT(error_of_pair(gguf_pair(std::string(70000, 'k'), kU8, "1")), HasSubstr("70000 bytes, more than"));
}
TEST(GgufErrors, DeepArrays) {
  std::string nested = raw(kU8) + raw<uint64_t>(0);
  for (int i = 0; i < 1000; ++i) nested = raw(kArray) + raw<uint64_t>(1) + nested;
  EXPECT_THAT(error_of_pair(gguf_pair("k", kArray, nested)), HasSubstr("nests arrays deeper than 4"));
}
TEST(GgufErrors, TooManyMetadataValues) {
  const uint64_t count = 9'000'000;
  EXPECT_THAT(error_of_pair(gguf_pair("k", kArray, raw(kU8) + raw(count) + std::string(count, 'x'))),
              HasSubstr("9000000 values, more than the limit"));
}
TEST(GgufErrors, UnsupportedType) {
  EXPECT_THAT(error_of_tensor(gguf_tensor("a", {256}, 10, 0)), HasSubstr("has the type Q2_K; supported are F64"));
  EXPECT_THAT(error_of_tensor(gguf_tensor("a", {256}, 999, 0)), HasSubstr("has the type 999"));
}
TEST(GgufErrors, BadShapes) {
  EXPECT_THAT(error_of_tensor(gguf_tensor("a", {1, 1, 1, 1, 1}, kF32Type, 0)), HasSubstr("5 dimensions"));
  EXPECT_THAT(error_of_tensor(gguf_tensor("a", {48, 2}, kQ8Type, 0)), HasSubstr("no whole number of blocks of 32"));
  EXPECT_THAT(error_of_tensor(gguf_tensor("a", {uint64_t{1} << 63}, kF32Type, 0)), HasSubstr("negative or exceeds"));
  EXPECT_THAT(error_of_tensor(gguf_tensor("a", {uint64_t{1} << 32, uint64_t{1} << 32}, kBf16Type, 0)),
              HasSubstr("negative or exceeds"));
}
TEST(GgufErrors, BadPlaces) {
  EXPECT_THAT(error_of_tensor(gguf_tensor("a", {2}, kF32Type, 4)), HasSubstr("no multiple of the alignment 32"));
  EXPECT_THAT(error_of_tensor(gguf_tensor("a", {17}, kF32Type, 0)), HasSubstr("truncated: tensor 'a' needs 68 bytes"));
  EXPECT_THAT(error_of_tensor(gguf_tensor("a", {2}, kF32Type, uint64_t{1} << 63)), HasSubstr("truncated: tensor 'a'"));
  EXPECT_THAT(error_of(gguf_image({}, {gguf_tensor("a", {9}, kF32Type, 0), gguf_tensor("b", {1}, kF32Type, 32)}, 64)),
              HasSubstr("'a' and 'b' overlap at byte 32"));
}

TEST(GgufSpeed, ATokenizerOf200kStringsParsesFast) {
  std::string strings = raw(kString) + raw<uint64_t>(200'000);
  for (int i = 0; i < 200'000; ++i) strings += gguf_string("token" + std::to_string(i));
  const std::string image = gguf_image({gguf_pair("tokenizer.ggml.tokens", kArray, strings)}, {}, 0);
  const std::clock_t start = std::clock();
  EXPECT_EQ(parse(image).metadata["tokenizer.ggml.tokens"].size(), 200'000u);
  [[maybe_unused]] const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
#if defined(NDEBUG) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(seconds, 0.5);
#endif
}

}  // namespace
}  // namespace puna::io
