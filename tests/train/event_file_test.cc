// Event files: the checksum's known values, the framing, and the messages byte by byte.
#include "train/event_file.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <fstream>

#include "base/error.h"
#include "io/file.h"
#include "tests/support/golden.h"

namespace puna::train {
namespace {

namespace fs = std::filesystem;

template <typename Number>
Number number_at(std::string_view bytes, size_t at) {
  Number number;
  std::memcpy(&number, bytes.substr(at, sizeof(Number)).data(), sizeof(Number));
  return number;
}

// RFC 3720, B.4.
TEST(EventFile, ChecksumHasItsKnownValues) {
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43u);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
}

// The payloads, with length and both checksums of each record checked; the mask is undone, not computed again.
std::vector<std::string> records_of(const fs::path& path) {
  const std::string file = io::read_file(path, 1 << 24);
  const auto unmask = [](uint32_t crc) { return std::rotl(crc - 0xA282EAD8u, 15); };
  std::vector<std::string> records;
  for (std::string_view rest = file; !rest.empty();) {
    EXPECT_GE(rest.size(), 16u);
    const auto size = number_at<uint64_t>(rest, 0);
    EXPECT_EQ(unmask(number_at<uint32_t>(rest, 8)), crc32c(rest.substr(0, 8)));
    EXPECT_GE(rest.size(), size + 16);
    records.emplace_back(rest.substr(12, size));
    EXPECT_EQ(unmask(number_at<uint32_t>(rest, 12 + size)), crc32c(records.back()));
    rest.remove_prefix(size + 16);
  }
  return records;
}

fs::path only_file(const fs::path& dir) {
  EXPECT_EQ(std::distance(fs::directory_iterator(dir), {}), 1);
  return fs::directory_iterator(dir)->path();
}

TEST(EventFile, RecordsAreFramedEventMessages) {
  const test::TemporaryDirectory dir;
  {
    EventFile file(dir.path() / "tb");
    file.scalar("train/loss", 300, 2.5);
  }
  const auto records = records_of(only_file(dir.path() / "tb"));
  ASSERT_EQ(records.size(), 2u);
  // wall_time, then the field behind it.
  EXPECT_EQ(records[0][0], '\x09');
  EXPECT_GT(number_at<double>(records[0], 1), 1.7e9);
  EXPECT_EQ(records[0].substr(9),
            "\x1a\x0d"
            "brain.Event:2");
  using std::string_literals::operator""s;
  EXPECT_EQ(records[1].substr(9), "\x10\xAC\x02\x2a\x13\x0a\x11\x0a\x0atrain/loss\x15\x00\x00\x20\x40"s);
}

// Else the steps that a killed run had done beyond its checkpoint would be drawn twice.
TEST(EventFile, OfARunThatGoesOnTellsFromWhichStep) {
  const test::TemporaryDirectory dir;
  EventFile(dir.path(), 301).flush();
  const auto records = records_of(only_file(dir.path()));
  ASSERT_EQ(records.size(), 2u);
  // step = 2: 301; session_log = 7: {status = 1: START = 1}.
  using std::string_literals::operator""s;
  EXPECT_EQ(records[1].substr(9), "\x10\xAD\x02\x3a\x02\x08\x01"s);
}

TEST(EventFile, FilesOfOneSecondDoNotOverwriteEachOther) {
  const test::TemporaryDirectory dir;
  for (int i = 0; i < 3; ++i) EventFile(dir.path()).scalar("x", i, i);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), {}), 3);
}

TEST(EventFile, LongRunsAndOddTagsStayReadable) {
  const test::TemporaryDirectory dir;
  EventFile file(dir.path());
  for (int64_t step = 0; step < 5000; ++step) file.scalar("a\n\xFF", step, 1);
  file.flush();
  const auto records = records_of(only_file(dir.path()));
  ASSERT_EQ(records.size(), 5001u);
  EXPECT_NE(records[7].find("a??"), std::string::npos);
}

TEST(EventFile, ADirectoryThatCannotBeMadeIsAnError) {
  const test::TemporaryDirectory dir;
  std::ofstream(dir.path() / "file") << "x";
  EXPECT_THROW(EventFile(dir.path() / "file"), Error);
}

}  // namespace
}  // namespace puna::train
