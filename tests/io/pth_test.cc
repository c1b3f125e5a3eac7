#include "io/pth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "tests/io/builders.h"
#include "tests/support/golden.h"

namespace puna::io {
namespace {

using namespace std::string_literals;
using test::as_bytes;
using test::pth_image;
using test::tensor_pickle;
using test::zip_image;
using testing::ElementsAre;
using testing::HasSubstr;

std::filesystem::path fixture(std::string_view name) {
  return std::filesystem::path(PUNA_SOURCE_DIR) / "tests/golden/io" / name;
}

std::string error_of(const std::string& image) {
  try {
    parse_pth(as_bytes(image), nullptr, "f");
  } catch (const Error& e) {
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << "an error is one line";
    return e.what();
  }
  return "no error";
}

std::string error_of_file(std::string_view name) {
  try {
    open_pth(fixture(name));
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

std::string error_of_pickle(const std::string& pickle) { return error_of(pth_image(pickle, 24)); }

template <typename T>
std::vector<T> values(const TensorView* tensor) {
  if (!tensor) return {};
  std::vector<T> numbers(tensor->bytes.size() / sizeof(T));
  std::memcpy(numbers.data(), tensor->bytes.data(), tensor->bytes.size());
  return numbers;
}

std::string replaced(std::string text, std::string_view from, std::string_view to, size_t which = 0) {
  size_t at = text.find(from);
  while (which-- > 0) at = text.find(from, at + 1);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

void expect_fixture_tensors(const TensorFile& file) {
  ASSERT_EQ(file.tensors().size(), 13u);
  EXPECT_EQ(file.tensors()[0].name, "f32");
  EXPECT_THAT(file.find("f32")->shape, ElementsAre(4, 6));
  const auto f32 = values<float>(file.find("f32"));
  for (size_t i = 0; i < 24; ++i) EXPECT_EQ(f32[i], static_cast<float>(i));
  EXPECT_EQ(values<float>(file.find("alias")), std::vector<float>(f32.begin() + 6, f32.begin() + 18));
  EXPECT_EQ(file.find("alias")->bytes.data(), file.find("f32")->bytes.data() + 24) << "shared storages are not copied";
  EXPECT_THAT(file.find("transposed")->shape, ElementsAre(6, 4));
  EXPECT_THAT(values<float>(file.find("transposed")), testing::IsSupersetOf({0.f, 6.f, 12.f, 18.f, 1.f, 23.f}));
  EXPECT_EQ(values<float>(file.find("transposed"))[5], 7.f);
  EXPECT_THAT(values<float>(file.find("window")), ElementsAre(8, 9, 10, 14, 15, 16, 20, 21, 22));
  EXPECT_EQ(file.find("bf16")->dtype, DType::BF16);
  EXPECT_EQ(values<uint16_t>(file.find("bf16"))[1], 0x3f80);
  EXPECT_EQ(file.find("f16")->dtype, DType::F16);
  EXPECT_EQ(values<uint16_t>(file.find("f16"))[1], 0x3c00);
  EXPECT_EQ(file.find("f8")->dtype, DType::F8E4M3);
  EXPECT_EQ(values<uint8_t>(file.find("f8"))[2], 0x40);
  EXPECT_THAT(values<int64_t>(file.find("i64")), ElementsAre(0, 1, 2));
  EXPECT_EQ(file.find("u16")->dtype, DType::U16);
  EXPECT_THAT(values<uint8_t>(file.find("bool")), ElementsAre(1, 0));
  EXPECT_EQ(values<float>(file.find("parameter")), f32);
  EXPECT_TRUE(file.find("scalar")->shape.empty());
  EXPECT_THAT(values<float>(file.find("scalar")), ElementsAre(3));
  EXPECT_THAT(file.find("empty")->shape, ElementsAre(0, 4));
}

TEST(Pth, ReadsWhatTorchWrote) { expect_fixture_tensors(open_pth(fixture("tensors.pth"))); }
TEST(Pth, ReadsPickleProtocolFour) { expect_fixture_tensors(open_pth(fixture("tensors_p4.pth"))); }

TEST(Pth, ExtraStateIsLeftOut) {
  const TensorFile file = open_pth(fixture("extra_state.pth"));
  ASSERT_EQ(file.tensors().size(), 1u);
  EXPECT_EQ(file.tensors()[0].name, "w");
}

TEST(Pth, HandMadeImageIsValid) {
  const std::string image = pth_image(tensor_pickle("w", 6, 1, {2, 2}, {2, 1}), 24);
  const TensorFile file = parse_pth(as_bytes(image), nullptr, "f");
  ASSERT_EQ(file.tensors().size(), 1u);
  EXPECT_EQ(std::to_integer<int>(file.tensors()[0].bytes[0]), 4);
}

TEST(PthErrors, LegacyFormat) { EXPECT_THAT(error_of_file("legacy.pth"), HasSubstr("legacy format of torch.save")); }
TEST(PthErrors, NestedDicts) { EXPECT_THAT(error_of_file("nested.pth"), HasSubstr("'model' is a dict, not a tensor")); }
TEST(PthErrors, NotAnArchive) {
  EXPECT_THAT(error_of("hello"), HasSubstr("no torch.save archive"));
  EXPECT_THAT(error_of(""), HasSubstr("no torch.save archive"));
}
TEST(PthErrors, NoPickle) { EXPECT_THAT(error_of(zip_image({{"x/data", "1"}})), HasSubstr("has no data.pkl")); }
TEST(PthErrors, TwoPickles) {
  EXPECT_THAT(error_of(zip_image({{"x/data.pkl", "1"}, {"y/data.pkl", "1"}})), HasSubstr("has two pickles"));
}
TEST(PthErrors, TorchScript) {
  EXPECT_THAT(error_of(zip_image({{"x/data.pkl", "1"}, {"x/constants.pkl", "1"}})), HasSubstr("TorchScript"));
}
TEST(PthErrors, BigEndian) {
  EXPECT_THAT(error_of(zip_image({{"x/data.pkl", "1"}, {"x/byteorder", "big"}})), HasSubstr("byte order 'big'"));
}
TEST(PthErrors, TruncatedAnywhere) {
  const std::string image = pth_image(tensor_pickle("w", 6, 0, {6}, {1}), 24);
  for (size_t size = 0; size < image.size(); ++size) EXPECT_NE(error_of(image.substr(0, size)), "no error") << size;
}

TEST(PthZipErrors, CompressedEntry) {
  std::string image = pth_image("N.", 24);
  const size_t central = image.find("PK\x01\x02");
  image[central + 10] = 8;
  EXPECT_THAT(error_of(image), HasSubstr("'x/data.pkl' is compressed, which torch.save never does"));
}
TEST(PthZipErrors, ExpandedSize) {
  std::string image = pth_image("N.", 24);
  image[image.find("PK\x01\x02") + 24] = 100;
  EXPECT_THAT(error_of(image), HasSubstr("is compressed"));
}
TEST(PthZipErrors, EncryptedEntry) {
  std::string image = pth_image("N.", 24);
  image[image.find("PK\x01\x02") + 8] = 1;
  EXPECT_THAT(error_of(image), HasSubstr("is encrypted"));
}
TEST(PthZipErrors, HeadersDisagree) {
  std::string image = pth_image("N.", 24);
  image[image.find("x/data.pkl")] = 'y';
  EXPECT_THAT(error_of(image), HasSubstr("headers of 'x/data.pkl' disagree"));
}
TEST(PthZipErrors, OverlappingEntries) {
  // A whole local entry hides in the first one's data, and the directory's second row points to it.
  const std::string hidden = zip_image({{"x/data/0", "12345678"}}).substr(0, 30 + 8 + 8);
  std::string image = zip_image({{"x/data.pkl", hidden}, {"x/data/0", "12345678"}});
  const uint32_t inside = 30 + 10;
  std::memcpy(image.data() + image.rfind("PK\x01\x02") + 42, &inside, 4);
  EXPECT_THAT(error_of(image), HasSubstr("'x/data.pkl' and 'x/data/0' overlap"));
}
TEST(PthZipErrors, DuplicateEntries) {
  EXPECT_THAT(error_of(zip_image({{"x/data.pkl", "1"}, {"x/data.pkl", "2"}})),
              HasSubstr("'x/data.pkl' is there twice"));
}
TEST(PthZipErrors, EntryOutsideTheFile) {
  std::string image = pth_image("N.", 24);
  const uint32_t far = 0x7fffffff;
  std::memcpy(image.data() + image.find("PK\x01\x02") + 42, &far, 4);
  EXPECT_THAT(error_of(image), HasSubstr("lies outside the file"));
}

TEST(PickleErrors, ForeignGlobalsAreRefusedByName) {
  EXPECT_THAT(error_of_pickle("\x80\x02"s + "cposix\nsystem\n(X\x02\x00\x00\x00lstR."s),
              HasSubstr("refused: posix.system;"));
  EXPECT_THAT(error_of_pickle("\x80\x04\x8c\x08"s + "builtins\x8c\x04"s + "eval\x93."s),
              HasSubstr("refused: builtins.eval;"));
  EXPECT_THAT(error_of_pickle("\x80\x02"s + "ctorch._utils\n_rebuild_sparse_tensor\n."s),
              HasSubstr("_rebuild_sparse_tensor;"));
}
TEST(PickleErrors, StorageTypesCannotBeCalled) {
  EXPECT_THAT(error_of_pickle("\x80\x02"s + "ctorch\nFloatStorage\n)R."s),
              HasSubstr("refused: a call of torch.FloatStorage"));
}
TEST(PickleErrors, UnknownOpcodes) {
  EXPECT_THAT(error_of_pickle("\x80\x02iposix\nsystem\n."), HasSubstr("the pickle opcode 0x69 at byte 2"));
  EXPECT_THAT(error_of_pickle("\x80\x02\x82\x01."), HasSubstr("opcode 0x82"));
}
TEST(PickleErrors, Protocols) {
  EXPECT_THAT(error_of_pickle("\x80\x01N."), HasSubstr("pickle protocol 1, 2 to 5"));
  EXPECT_THAT(error_of_pickle("\x80\x06N."), HasSubstr("pickle protocol 6"));
}
TEST(PickleErrors, StackAndMemoAreChecked) {
  EXPECT_THAT(error_of_pickle("\x80\x02."), HasSubstr("the stack is empty"));
  EXPECT_THAT(error_of_pickle("\x80\x02t."), HasSubstr("there is no mark"));
  EXPECT_THAT(error_of_pickle("\x80\x02(\x85."), HasSubstr("the stack is empty"));
  EXPECT_THAT(error_of_pickle("\x80\x02h\x07."), HasSubstr("memo 7 is empty"));
  EXPECT_THAT(error_of_pickle("\x80\x02NN."), HasSubstr("left over"));
  EXPECT_THAT(error_of_pickle("\x80\x02}(N"s + "u."s), HasSubstr("a dict key has no value"));
  EXPECT_THAT(error_of_pickle("\x80\x02NNs."), HasSubstr("the stack is empty"));
  EXPECT_THAT(error_of_pickle("\x80\x02NNNs."), HasSubstr("found a None, expected a dict"));
  EXPECT_THAT(error_of_pickle("\x80\x02" + std::string(20'000, '(')), HasSubstr("too many open marks"));
}
TEST(PickleErrors, TooManyValues) {
  EXPECT_THAT(error_of_pickle("\x80\x02" + std::string(5'000'000, 'N')), HasSubstr("over 4000000 values"));
}
TEST(PickleErrors, DeepNestingIsHarmless) {
  std::string pickle = "\x80\x02]";
  for (int i = 0; i < 1'000'000; ++i) pickle += '\x85';
  EXPECT_THAT(error_of_pickle(pickle + "."), HasSubstr("holds a tuple, expected a dict"));
}
TEST(PickleErrors, CyclesAreHarmless) {
  EXPECT_THAT(error_of_pickle("\x80\x02]q\x01h\x01"s + "a."s), HasSubstr("holds a list, expected a dict"));
}
TEST(PickleErrors, NotADictOfNames) {
  EXPECT_THAT(error_of_pickle("\x80\x02}NNs."), HasSubstr("a key that is no UTF-8 string"));
  EXPECT_THAT(error_of_pickle("\x80\x02}X\x01\x00\x00\x00kNs."s), HasSubstr("'k' is a None, not a tensor"));
}
TEST(PickleErrors, LongStrings) {
  EXPECT_THAT(error_of_pickle("\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff"), HasSubstr("truncated: a string"));
}
TEST(PickleErrors, LongIntegers) {
  EXPECT_THAT(error_of_pickle("\x80\x02\x8a\x09"s + std::string(9, '1') + "."), HasSubstr("integer of 9 bytes"));
}

std::string error_of_tensor(int32_t numel, int32_t offset, std::vector<int32_t> shape, std::vector<int32_t> strides) {
  return error_of_pickle(tensor_pickle("w", numel, offset, std::move(shape), std::move(strides)));
}

TEST(PthTensorErrors, Valid) { EXPECT_EQ(error_of_tensor(6, 0, {2, 3}, {3, 1}), "no error"); }
TEST(PthTensorErrors, BeyondItsStorage) {
  EXPECT_THAT(error_of_tensor(6, 1, {2, 3}, {3, 1}), HasSubstr("does not fit its storage of 6 elements"));
  EXPECT_THAT(error_of_tensor(6, 0, {2, 3}, {4, 1}), HasSubstr("does not fit"));
  EXPECT_THAT(error_of_tensor(6, 7, {}, {}), HasSubstr("does not fit"));
  EXPECT_THAT(error_of_tensor(6, 7, {0}, {1}), HasSubstr("does not fit"));
}
TEST(PthTensorErrors, Overflowing) {
  EXPECT_THAT(error_of_tensor(6, 0, {0x7fffffff, 0x7fffffff, 0x7fffffff}, {0x7fffffff, 0x7fffffff, 1}),
              HasSubstr("does not fit"));
}
TEST(PthTensorErrors, ExpandedTensorsAreNoBombs) {
  EXPECT_THAT(error_of_tensor(6, 0, {0x7fffffff}, {0}), HasSubstr("does not fit"));
}
TEST(PthTensorErrors, NegativeNumbers) {
  EXPECT_THAT(error_of_tensor(6, -1, {1}, {1}), HasSubstr("do not fit"));
  EXPECT_THAT(error_of_tensor(6, 0, {-1}, {1}), HasSubstr("negative extent"));
  EXPECT_THAT(error_of_tensor(6, 5, {2}, {-1}), HasSubstr("negative extent or stride"));
  EXPECT_THAT(error_of_tensor(-6, 0, {1}, {1}), HasSubstr("negative size"));
}
TEST(PthTensorErrors, RanksDiffer) { EXPECT_THAT(error_of_tensor(6, 0, {2, 3}, {1}), HasSubstr("do not fit")); }
TEST(PthTensorErrors, StorageOfAnotherSize) {
  EXPECT_THAT(error_of_tensor(7, 0, {2}, {1}), HasSubstr("should have 7 elements of F32, has 24 bytes"));
}
TEST(PthTensorErrors, MissingStorage) {
  const std::string pickle =
      replaced(tensor_pickle("w", 6, 0, {2}, {1}), "X\x01\x00\x00\x00\x30"s, "X\x01\x00\x00\x00\x39"s);
  EXPECT_THAT(error_of_pickle(pickle), HasSubstr("wants the storage '9', which is not in the archive"));
}
TEST(PthTensorErrors, AbsurdStrideOfAnExtentOfOne) {
  EXPECT_EQ(error_of_tensor(6, 0, {2, 1, 2}, {1, 0x7fffffff, 2}), "no error");
}
TEST(PthTensorErrors, CopiesHaveABudget) {
  std::string pickle = tensor_pickle("w", 6, 0, {2, 3}, {1, 2});
  pickle = replaced(pickle, "_rebuild_tensor_v2\n", "_rebuild_tensor_v2\nq\x01");
  pickle = replaced(pickle, ")RtRs.", ")Rtq\x02Rs");
  EXPECT_EQ(error_of_pickle(pickle + "."), "no error");
  for (char name = '!'; name < 'w'; ++name) pickle += "X\x01\x00\x00\x00"s + name + "h\x01h\x02Rs";
  EXPECT_THAT(error_of_pickle(pickle + "."), HasSubstr("need more memory than the file has bytes"));
}

}  // namespace
}  // namespace puna::io
