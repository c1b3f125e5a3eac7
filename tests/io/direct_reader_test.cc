// Direct reads: the same bytes as plain ones, in any order; files that end, change or cannot be read.
#include "io/direct_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <random>
#include <vector>

#include "base/error.h"
#include "tests/support/golden.h"

namespace puna::io {
namespace {

using testing::HasSubstr;

class DirectReads : public testing::Test {
 protected:
  /// A file of random bytes; its content.
  std::vector<std::byte> make(int64_t bytes) {
    std::mt19937_64 random(7);
    std::vector<std::byte> content(static_cast<size_t>(bytes));
    for (std::byte& byte : content) byte = static_cast<std::byte>(random());
    std::ofstream(path()).write(reinterpret_cast<const char*>(content.data()), bytes);
    return content;
  }
  std::filesystem::path path() const { return dir_.path() / "file"; }
  static std::string error_of(DirectReader& reader, DirectReader::Ticket ticket) {
    try {
      reader.wait(ticket);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

 private:
  test::TemporaryDirectory dir_;
};

TEST_F(DirectReads, GiveTheBytesOfTheFileInAnyOrder) {
  const std::vector<std::byte> content = make((11 << 20) + 8192 + 100);
  DirectReader reader(path(), 4);
  const int64_t pages = static_cast<int64_t>(content.size()) / kDirectAlignment + 1;
  std::mt19937_64 random(1);
  struct Read {
    int64_t offset, bytes;
    std::unique_ptr<AlignedBytes> to;
    DirectReader::Ticket ticket;
  };
  std::vector<Read> reads;
  for (int i = 0; i < 60; ++i) {
    const int64_t first = static_cast<int64_t>(random() % static_cast<uint64_t>(pages));
    const int64_t count =
        1 + static_cast<int64_t>(random() % static_cast<uint64_t>(std::min<int64_t>(pages - first, 700)));
    Read read = {first * kDirectAlignment, count * kDirectAlignment, nullptr, 0};
    read.to = std::make_unique<AlignedBytes>(read.bytes);
    read.ticket = reader.submit(read.offset, read.bytes, read.to->data(), i % 5 == 0);
    if (i % 7 == 0) reader.hurry(read.ticket);
    reads.push_back(std::move(read));
  }
  std::shuffle(reads.begin(), reads.end(), random);
  int64_t total = 0;
  for (const Read& read : reads) {
    reader.wait(read.ticket);
    EXPECT_TRUE(reader.is_done(read.ticket));
    const int64_t there = std::min(read.bytes, static_cast<int64_t>(content.size()) - read.offset);
    EXPECT_EQ(std::memcmp(read.to->data(), content.data() + read.offset, static_cast<size_t>(there)), 0);
    for (int64_t i = there; i < read.bytes; ++i) ASSERT_EQ(read.to->data()[i], std::byte{0});
    total += there;
  }
  EXPECT_EQ(reader.bytes_read(), total);
}

TEST_F(DirectReads, BeyondTheEndAreAnError) {
  make(3 * kDirectAlignment);
  DirectReader reader(path());
  const AlignedBytes to(4 * kDirectAlignment);
  EXPECT_THAT(error_of(reader, reader.submit(0, 4 * kDirectAlignment, to.data(), false)),
              HasSubstr("ends at byte 12288"));
  EXPECT_THAT(error_of(reader, reader.submit(8 * kDirectAlignment, kDirectAlignment, to.data(), false)),
              HasSubstr("is it whole?"));
  EXPECT_EQ(error_of(reader, reader.submit(0, 3 * kDirectAlignment, to.data(), false)), "");
}

TEST_F(DirectReads, OfAFileThatWasCutOrChangedAreAnError) {
  const std::vector<std::byte> content = make(4 << 20);
  const AlignedBytes to(4 << 20);
  {
    DirectReader reader(path());
    EXPECT_EQ(error_of(reader, reader.submit(0, 4 << 20, to.data(), false)), "");
    std::filesystem::resize_file(path(), 1 << 20);
    EXPECT_THAT(error_of(reader, reader.submit(0, 4 << 20, to.data(), false)), HasSubstr("start again"));
  }
  make(4 << 20);
  DirectReader reader(path());
  std::fstream(path(), std::ios::in | std::ios::out).write("x", 1);
  EXPECT_THAT(error_of(reader, reader.submit(0, 4096, to.data(), false)), HasSubstr("was changed while it was in use"));
}

TEST_F(DirectReads, AreDroppedWhenTheReaderGoes) {
  make(8 << 20);
  const AlignedBytes to(8 << 20);
  DirectReader reader(path(), 2);
  for (int i = 0; i < 50; ++i) reader.submit(0, 8 << 20, to.data(), false);
}

TEST_F(DirectReads, NeedAFile) {
  EXPECT_THROW(DirectReader(path() / "none"), Error);
  EXPECT_THROW(DirectReader(path().parent_path()), Error);
}

}  // namespace
}  // namespace puna::io
