#include "io/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>

#include "base/error.h"
#include "io/safetensors.h"
#include "io/text.h"
#include "tests/io/builders.h"
#include "tests/support/golden.h"

namespace puna::io {
namespace {

namespace fs = std::filesystem;
using test::as_bytes;
using testing::HasSubstr;

template <typename F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

size_t files_in(const fs::path& dir) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(dir), fs::directory_iterator()));
}

TEST(MappedFile, MapsBytesAndNamesWhatIsWrong) {
  const test::TemporaryDirectory dir;
  write_file(dir.path() / "f", "hello");
  write_file(dir.path() / "empty", "");
  const auto file = MappedFile::open(dir.path() / "f");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()), "hello");
  EXPECT_TRUE(MappedFile::open(dir.path() / "empty")->bytes().empty());
  EXPECT_THAT(error_of([&] { MappedFile::open(dir.path() / "none"); }), HasSubstr("No such file"));
  EXPECT_THAT(error_of([&] { MappedFile::open(dir.path()); }), HasSubstr("is a directory"));
  ASSERT_EQ(mkfifo((dir.path() / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(error_of([&] { MappedFile::open(dir.path() / "pipe"); }), HasSubstr("no regular file"));
}

TEST(ReadFile, RefusesMoreThanTheLimit) {
  const test::TemporaryDirectory dir;
  write_file(dir.path() / "f", "hello");
  EXPECT_EQ(read_file(dir.path() / "f", 5), "hello");
  EXPECT_THAT(error_of([&] { read_file(dir.path() / "f", 4); }), HasSubstr("5 bytes, more than the limit of 4"));
}

TEST(AtomicFile, NothingIsThereUntilCommit) {
  const test::TemporaryDirectory dir;
  const fs::path path = dir.path() / "f";
  {
    AtomicFile file(path);
    file.write("half");
    EXPECT_FALSE(fs::exists(path));
  }
  EXPECT_EQ(files_in(dir.path()), 0u);
  write_file(path, "old");
  AtomicFile one(path), two(path);
  one.write("one");
  two.write("two");
  EXPECT_EQ(read_file(path, 100), "old");
  two.commit();
  one.commit();
  EXPECT_EQ(read_file(path, 100), "one");
  EXPECT_EQ(files_in(dir.path()), 1u);
}

TEST(AtomicFile, CannotBeWritten) {
  const test::TemporaryDirectory dir;
  EXPECT_THAT(error_of([&] { write_file(dir.path() / "no/f", "x"); }), HasSubstr("cannot be written: No such file"));
  EXPECT_THAT(error_of([&] { write_file(dir.path(), "x"); }), HasSubstr("is a directory"));
  ASSERT_EQ(mkfifo((dir.path() / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(error_of([&] { write_file(dir.path() / "pipe", "x"); }), HasSubstr("no regular file"));
}

// A limit on file size stands for a disk that fails in the middle.
TEST(AtomicFile, AFailedWriteLeavesNothing) {
  const test::TemporaryDirectory dir;
  rlimit old = {};
  getrlimit(RLIMIT_FSIZE, &old);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small = {10, old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string error = error_of([&] { write_file(dir.path() / "f", std::string(100, 'x')); });
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(error, HasSubstr("cannot be written: File too large"));
  EXPECT_EQ(files_in(dir.path()), 0u);
}

TEST(Text, Utf8IsChecked) {
  for (const char* good : {"", "abc", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x99\x82", "\xf4\x8f\xbf\xbf"})
    EXPECT_TRUE(is_valid_utf8(good)) << good;
  for (const char* bad : {"\xff", "\x80", "\xc3", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                          "\xf0\x80\x80\x80", "a\xe2\x82"})
    EXPECT_FALSE(is_valid_utf8(bad)) << printable(bad);
}

TEST(Text, PrintableIsOneShortLine) {
  EXPECT_EQ(printable("a\nb\x7f\xff\xc3\xa9"), "a?b??\xc3\xa9");
  EXPECT_LT(printable(std::string(1000, 'x')).size(), 130u);
  EXPECT_EQ(shape_text(std::vector<int64_t>{2, 3}), "[2, 3]");
  EXPECT_EQ(shape_text({}), "[]");
  EXPECT_EQ(shape_text(std::vector<int64_t>(20, 1)), "[1, 1, 1, 1, 1, 1, 1, 1, ...]");
}

std::vector<TensorView> two_tensors(const std::string& data) {
  return {{"z", DType::U8, {3}, as_bytes(data).first(3), nullptr},
          {"a \"\xc3\xa9", DType::F32, {1, 2}, as_bytes(data).subspan(3, 8), nullptr}};
}

TEST(SafetensorsWriter, RoundTripKeepsOrderAndPadsTheHeader) {
  const test::TemporaryDirectory dir;
  const fs::path path = dir.path() / "f.safetensors";
  const std::string data = "0123456789abc";
  const auto tensors = two_tensors(data);
  write_safetensors(path, tensors, {{"format", "pt"}, {"k", "v\n"}});
  const std::string bytes = read_file(path, 10'000);
  uint64_t header_bytes;
  memcpy(&header_bytes, bytes.data(), 8);
  EXPECT_EQ(header_bytes % 8, 0u);
  const TensorFile file = open_safetensors(path);
  EXPECT_EQ(file.metadata, (std::map<std::string, std::string>{{"format", "pt"}, {"k", "v\n"}}));
  ASSERT_EQ(file.tensors().size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    const TensorView& got = file.tensors()[i];
    EXPECT_EQ(got.name, tensors[i].name);
    EXPECT_EQ(got.dtype, tensors[i].dtype);
    EXPECT_EQ(got.shape, tensors[i].shape);
    EXPECT_TRUE(std::ranges::equal(got.bytes, tensors[i].bytes));
  }
  EXPECT_EQ(files_in(dir.path()), 1u);
}

TEST(SafetensorsWriter, NoTensorsAtAll) {
  const test::TemporaryDirectory dir;
  write_safetensors(dir.path() / "f", {}, {});
  EXPECT_TRUE(open_safetensors(dir.path() / "f").tensors().empty());
}

TEST(SafetensorsWriter, RefusesWhatTheFormatCannotHold) {
  const test::TemporaryDirectory dir;
  const auto write = [&](std::vector<TensorView> tensors) {
    return error_of([&] { write_safetensors(dir.path() / "f", tensors, {}); });
  };
  EXPECT_THAT(write({{"a", DType::U8, {0}, {}, nullptr}, {"a", DType::U8, {0}, {}, nullptr}}),
              HasSubstr("given twice"));
  EXPECT_THAT(write({{"__metadata__", DType::U8, {0}, {}, nullptr}}), HasSubstr("reserved"));
  EXPECT_THAT(write({{"\xff", DType::U8, {0}, {}, nullptr}}), HasSubstr("not UTF-8"));
  EXPECT_THAT(write({{"q", DType::Q8_0, {0}, {}, nullptr}}), HasSubstr("Q8_0, which safetensors cannot hold"));
  EXPECT_EQ(files_in(dir.path()), 0u);
}

TEST(SafetensorsWriter, WrongCountsAreBugs) {
  const test::TemporaryDirectory dir;
  SafetensorsWriter writer(dir.path() / "f", {{"a", DType::U8, {2}}});
  EXPECT_THROW(writer.commit(), InternalError);
  writer.write(as_bytes("x"));
  EXPECT_THROW(writer.commit(), InternalError);
  EXPECT_THROW(writer.write(as_bytes("yz")), InternalError);
}

TEST(SafetensorsWriter, TakesTensorsInPartsAndAlignsTheFirst) {
  const test::TemporaryDirectory dir;
  const fs::path path = dir.path() / "f.safetensors";
  SafetensorsWriter writer(path, {{"a", DType::U8, {5}}, {"b", DType::U8, {2}}}, {}, 4096);
  for (const char* part : {"01", "2", "34", "56"}) writer.write(as_bytes(part));
  writer.commit();
  EXPECT_EQ(fs::file_size(path), 4096 + 7);
  const TensorFile file = open_safetensors(path);
  EXPECT_TRUE(std::ranges::equal(file.find("a")->bytes, as_bytes("01234")));
  EXPECT_TRUE(std::ranges::equal(file.find("b")->bytes, as_bytes("56")));
}

TEST(PathExists, TellsAbsentFromUnknowable) {
  const test::TemporaryDirectory dir;
  EXPECT_TRUE(path_exists(dir.path()));
  EXPECT_FALSE(path_exists(dir.path() / "absent"));
  const std::string name(300, 'x');
  EXPECT_THAT(error_of([&] { path_exists(dir.path() / name); }), HasSubstr("name too long"));
  std::filesystem::create_symlink("ring", dir.path() / "ring");
  EXPECT_THAT(error_of([&] { path_exists(dir.path() / "ring"); }), HasSubstr("ring] cannot be opened"));
}

}  // namespace
}  // namespace puna::io
