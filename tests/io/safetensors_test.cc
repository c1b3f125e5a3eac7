#include "io/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <ctime>
#include <fstream>

#include "base/error.h"
#include "base/memory.h"
#include "tests/io/builders.h"
#include "tests/support/golden.h"

namespace puna::io {
namespace {

namespace fs = std::filesystem;
using test::as_bytes;
using test::safetensors_image;
using testing::ElementsAre;
using testing::HasSubstr;

std::string error_of(const std::string& image) {
  try {
    parse_safetensors(as_bytes(image), nullptr, "f");
  } catch (const Error& e) {
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << "an error is one line";
    return e.what();
  }
  return "no error";
}

std::string error_of(std::string_view header, size_t data_bytes) {
  return error_of(safetensors_image(header, data_bytes));
}

// {"a": F32 [2] at 0..8, "b": U8 [4] at 8..12} with one part replaced.
std::string error_with(std::string_view from, std::string_view to, size_t data_bytes = 12) {
  std::string header = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                       R"("b":{"dtype":"U8","shape":[4],"data_offsets":[8,12]}})";
  if (!from.empty()) {
    const size_t at = header.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    header.replace(at, from.size(), to);
  }
  return error_of(header, data_bytes);
}

TEST(Safetensors, ViewsPointIntoTheFileInHeaderOrder) {
  const std::string image =
      safetensors_image(R"({"b":{"dtype":"U8","shape":[4],"data_offsets":[8,12]},"__metadata__":{"format":"pt"},)"
                        R"("a":{"shape":[2,1],"data_offsets":[0,8],"dtype":"F32"}}   )",
                        12);
  const TensorFile file = parse_safetensors(as_bytes(image), nullptr, "f");
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.tensors()[0].name, "b");
  EXPECT_EQ(file.metadata.at("format"), "pt");
  const TensorView* a = file.find("a");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->dtype, DType::F32);
  EXPECT_THAT(a->shape, ElementsAre(2, 1));
  EXPECT_EQ(a->bytes.data(), as_bytes(image).data() + image.size() - 12);
  EXPECT_EQ(a->bytes.size(), 8u);
  EXPECT_EQ(file.find("c"), nullptr);
  EXPECT_EQ(file.total_bytes(), 12);
}

TEST(Safetensors, EveryDtypeHasItsName) {
  for (const char* name : {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32", "I16", "I8", "U64", "U32",
                           "U16", "U8", "BOOL"}) {
    const auto bytes = static_cast<size_t>(dtype_info(*dtype_from_name(name)).block_bytes) * 3;
    EXPECT_EQ(
        error_of(fmt::format(R"({{"a":{{"dtype":"{}","shape":[3],"data_offsets":[0,{}]}}}})", name, bytes), bytes),
        "no error");
  }
}

TEST(Safetensors, ScalarsEmptyTensorsAndNoTensorsAreFine) {
  EXPECT_EQ(error_of("{}", 0), "no error");
  EXPECT_EQ(error_of(R"({"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                     R"("e":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]}})",
                     4),
            "no error");
}

TEST(Safetensors, AlignmentIsReported) {
  const std::string image = safetensors_image(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                              R"("y":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})",
                                              5);
  const TensorFile file = parse_safetensors(as_bytes(image), nullptr, "f");
  const auto address = reinterpret_cast<uintptr_t>(file.find("y")->bytes.data());
  EXPECT_EQ(is_aligned(*file.find("y")), address % 4 == 0);
  TensorView view = *file.find("y");
  alignas(8) static const std::byte buffer[16] = {};
  view.bytes = std::span(buffer).first(4);
  EXPECT_TRUE(is_aligned(view));
  view.bytes = std::span(buffer).subspan(2, 4);
  EXPECT_FALSE(is_aligned(view));
}

TEST(SafetensorsErrors, Valid) { EXPECT_EQ(error_with("", ""), "no error"); }
TEST(SafetensorsErrors, TruncatedData) { EXPECT_THAT(error_with("", "", 11), HasSubstr("truncated: tensor 'b'")); }
TEST(SafetensorsErrors, TrailingBytes) { EXPECT_THAT(error_with("", "", 13), HasSubstr("1 bytes follow the last")); }
TEST(SafetensorsErrors, TruncatedLength) { EXPECT_THAT(error_of("abc"), HasSubstr("truncated: the header's length")); }
TEST(SafetensorsErrors, TruncatedHeader) {
  EXPECT_THAT(error_of(safetensors_image(R"({"a":{"dtype")", 0).substr(0, 15)), HasSubstr("truncated: the header"));
}
TEST(SafetensorsErrors, AbsurdHeaderLength) {
  EXPECT_THAT(error_of(test::raw(uint64_t{1} << 63) + "{}"), HasSubstr("9223372036854775808, more than 100000000"));
}
TEST(SafetensorsErrors, Overlap) {
  EXPECT_THAT(error_with("[8,12]", "[7,11]"), HasSubstr("tensors 'a' and 'b' overlap at byte 7"));
}
TEST(SafetensorsErrors, Hole) {
  EXPECT_THAT(error_with("[8,12]", "[9,13]", 13), HasSubstr("bytes 8 to 9 of the data, before 'b'"));
}
TEST(SafetensorsErrors, OutOfRange) {
  EXPECT_THAT(error_with("[8,12]", "[1000008,1000012]"), HasSubstr("ends at byte 1000012 of the data, there are 12"));
}
TEST(SafetensorsErrors, BackwardOffsets) {
  EXPECT_THAT(error_with("[8,12]", "[12,8]"), HasSubstr("end (8) before they begin (12)"));
}
TEST(SafetensorsErrors, DuplicateName) { EXPECT_THAT(error_with("\"b\"", "\"a\""), HasSubstr("the key 'a' twice")); }
TEST(SafetensorsErrors, DuplicateNameByEscape) {
  EXPECT_THAT(error_with("\"b\"", R"("\u0061")"), HasSubstr("the key 'a' twice"));
}
TEST(SafetensorsErrors, DuplicateField) {
  EXPECT_THAT(error_with(R"("shape":[4])", R"("shape":[4],"shape":[4])"), HasSubstr("field 'shape' twice"));
}
TEST(SafetensorsErrors, DuplicateMetadata) {
  EXPECT_THAT(error_of(R"({"__metadata__":{"k":"1","k":"2"}})", 0), HasSubstr("key 'k' twice"));
}
TEST(SafetensorsErrors, SizesBeyondInt64) {
  EXPECT_THAT(error_with("[4]", "[4611686018427387904,4611686018427387904]"), HasSubstr("exceeds 2^63 bytes"));
  EXPECT_THAT(error_with("[2]", "[4611686018427387904]"), HasSubstr("exceeds 2^63 bytes"));
  EXPECT_THAT(error_with("[4]", "[9223372036854775808]"), HasSubstr("9223372036854775808, 2^63 or more"));
  EXPECT_THAT(error_with("[8,12]", "[8,18446744073709551615]"), HasSubstr("2^63 or more"));
  EXPECT_THAT(error_with("[4]", "[99999999999999999999]"), HasSubstr("the shape of tensor 'b' cannot be"));
}
TEST(SafetensorsErrors, NegativeAndFractionalExtents) {
  EXPECT_THAT(error_with("[4]", "[-4]"), HasSubstr("cannot be -4"));
  EXPECT_THAT(error_with("[4]", "[4.0]"), HasSubstr("cannot be 4.0"));
}
TEST(SafetensorsErrors, ShapeDoesNotMatchOffsets) {
  EXPECT_THAT(error_with("[4]", "[5]"), HasSubstr("'b' U8 [5] needs 5 bytes, its data_offsets give it 4"));
}
TEST(SafetensorsErrors, UnknownDtype) {
  EXPECT_THAT(error_with("\"U8\"", "\"F4\""), HasSubstr("unknown dtype 'F4'"));
  EXPECT_THAT(error_with("\"U8\"", "\"Q8_0\""), HasSubstr("unknown dtype 'Q8_0'"));
}
TEST(SafetensorsErrors, MissingField) {
  EXPECT_THAT(error_with(R"(,"data_offsets":[8,12])", ""), HasSubstr("'b' lacks its data_offsets"));
}
TEST(SafetensorsErrors, UnknownField) {
  EXPECT_THAT(error_with(R"("shape":[4])", R"("shape":[4],"x":1)"), HasSubstr("unknown field 'x'"));
}
TEST(SafetensorsErrors, WrongTypes) {
  EXPECT_THAT(error_of("[]", 0), HasSubstr("must be a JSON object, found an array"));
  EXPECT_THAT(error_of("3", 0), HasSubstr("must be a JSON object"));
  EXPECT_THAT(error_of(R"({"a":[]})", 0), HasSubstr("'a' must be an object"));
  EXPECT_THAT(error_of(R"({"__metadata__":{"k":1}})", 0), HasSubstr("'k' must be a string"));
  EXPECT_THAT(error_with("[4]", "[[4]]"), HasSubstr("shape of tensor 'b' cannot be an array"));
  EXPECT_THAT(error_with("[8,12]", "[8]"), HasSubstr("has 1 data_offsets, expected 2"));
  EXPECT_THAT(error_with("[8,12]", "[8,12,13]"), HasSubstr("data_offsets of tensor 'b' cannot be 13"));
}
TEST(SafetensorsErrors, NotUtf8) { EXPECT_THAT(error_with("\"b\"", "\"\xff\""), HasSubstr("not valid JSON at byte")); }
TEST(SafetensorsErrors, NotJson) { EXPECT_THAT(error_of("{nope}", 0), HasSubstr("not valid JSON")); }
TEST(SafetensorsErrors, DeepNesting) { EXPECT_THAT(error_of(std::string(1000000, '['), 0), HasSubstr("JSON object")); }
TEST(SafetensorsErrors, NamesWithNewlinesStayOnOneLine) {
  EXPECT_THAT(error_of(R"({"x\ny":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 3), HasSubstr("'x?y'"));
}

class SafetensorsIndex : public testing::Test {
 protected:
  void shard(const std::string& name, const std::string& tensor) {
    write(name, safetensors_image(R"({")" + tensor + R"(":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4));
  }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(dir_.path() / name, std::ios::binary) << text;
  }
  std::string error_of_index(const std::string& weight_map) const {
    write("model.safetensors.index.json", R"({"metadata":{},"weight_map":)" + weight_map + "}");
    try {
      open_safetensors_index(dir_.path() / "model.safetensors.index.json");
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }
  test::TemporaryDirectory dir_;
};

TEST_F(SafetensorsIndex, OpensShardsAlsoThroughSymlinks) {
  shard("one", "a");
  shard("target", "b");
  fs::create_symlink("target", dir_.path() / "two");
  EXPECT_EQ(error_of_index(R"({"a":"one","b":"two"})"), "no error");
}
TEST_F(SafetensorsIndex, MissingShard) {
  shard("one", "a");
  EXPECT_THAT(error_of_index(R"({"a":"one","b":"two"})"), HasSubstr("names the shard 'two', which is not beside it"));
}
TEST_F(SafetensorsIndex, TensorInAnotherShard) {
  shard("one", "a");
  shard("two", "b");
  EXPECT_THAT(error_of_index(R"({"b":"one","a":"two"})"), HasSubstr("holds the tensor 'a', but the index"));
}
TEST_F(SafetensorsIndex, TensorNotInIndex) {
  shard("one", "a");
  shard("two", "b");
  EXPECT_THAT(error_of_index(R"({"a":"one","c":"two"})"), HasSubstr("holds the tensor 'b', which the index"));
}
TEST_F(SafetensorsIndex, TensorOfIndexInNoShard) {
  shard("one", "a");
  EXPECT_THAT(error_of_index(R"({"a":"one","b":"one"})"), HasSubstr("lacks the tensor 'b' of the index"));
}
TEST_F(SafetensorsIndex, TensorInTwoShards) {
  shard("one", "a");
  write("two", safetensors_image(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                                 R"("b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
                                 4));
  EXPECT_THAT(error_of_index(R"({"a":"one","b":"two"})"), HasSubstr("tensor 'a' is there twice"));
}
TEST_F(SafetensorsIndex, ShardNamesWithPathsAreRefused) {
  shard("one", "a");
  for (const char* name : {"../one", "/etc/passwd", "..", ".", "", "a\\\\b", "sub/one", "one\\u0000"})
    EXPECT_THAT(error_of_index(fmt::format(R"({{"a":"{}"}})", name)), HasSubstr("is refused")) << name;
}
TEST_F(SafetensorsIndex, WrongJson) {
  EXPECT_THAT(error_of_index(R"({"a":1})"), HasSubstr("gives 'a' no file name"));
  EXPECT_THAT(error_of_index(R"([])"), HasSubstr("no object 'weight_map'"));
  EXPECT_THAT(error_of_index(R"({})"), HasSubstr("weight_map is empty"));
  EXPECT_THAT(error_of_index(R"({"a":"one","a":"two"})"), HasSubstr("appears twice"));
}

TEST(SafetensorsSpeed, HundredThousandTensorsOpenInASecond) {
  std::string header = "{";
  for (int i = 0; i < 100'000; ++i)
    header += fmt::format(R"({}"model.layers.{}.feed_forward.experts.weight":{{"dtype":"BF16","shape":[1,2],)"
                          R"("data_offsets":[{},{}]}})",
                          i ? "," : "", i, i * 4, i * 4 + 4);
  const std::string image = safetensors_image(header + "}", 400'000);
  const std::clock_t start = std::clock();
  EXPECT_EQ(parse_safetensors(as_bytes(image), nullptr, "f").tensors().size(), 100'000u);
  [[maybe_unused]] const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
#if defined(NDEBUG) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(seconds, 1.0);
#endif
}

// A sparse file stands for a large checkpoint: reading its bytes would make them resident.
TEST(SafetensorsSpeed, OpeningSixGigabytesTouchesNoTensorBytes) {
  const test::TemporaryDirectory dir;
  const fs::path path = dir.path() / "big.safetensors";
  const int64_t size = int64_t{6} << 30;
  std::ofstream(path, std::ios::binary) << safetensors_image(
      fmt::format(R"({{"a":{{"dtype":"BF16","shape":[{}],"data_offsets":[0,{}]}}}})", size / 2, size), 0);
  fs::resize_file(path, fs::file_size(path) + static_cast<uintmax_t>(size));
  const int64_t before = resident_memory_bytes();
  const TensorFile file = open_safetensors(path);
  EXPECT_EQ(file.total_bytes(), size);
  EXPECT_LT(resident_memory_bytes() - before, 64 << 20);
}

}  // namespace
}  // namespace puna::io
