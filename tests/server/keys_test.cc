#include "server/keys.h"

#include <gtest/gtest.h>

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "server/api_error.h"

namespace puna::server {
namespace {

using std::chrono::seconds;

// Of "sesame" and "other".
constexpr const char* kSesame = "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272";
constexpr const char* kOther = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";

class KeyFile : public testing::Test {
 protected:
  KeyFile() : path_(std::filesystem::temp_directory_path() / fmt::format("puna_keys_{}", getpid())) {}
  ~KeyFile() override { std::filesystem::remove(path_); }
  Keys read(const std::string& text) {
    std::ofstream(path_) << text;
    return Keys(path_);
  }
  std::filesystem::path path_;
};

TEST_F(KeyFile, NamesAndLimits) {
  const Keys keys =
      read(fmt::format("# ours\n{}  - at-once=3\n{} team per-minute=60 at-once=2 # why\n", kSesame, kOther));
  ASSERT_EQ(keys.size(), 2u);
  EXPECT_EQ(keys[0].name, "");
  EXPECT_EQ(keys[0].at_once, 3);
  EXPECT_EQ(keys[0].per_minute, 0);
  EXPECT_EQ(keys[1].name, "team");
  EXPECT_EQ(keys[1].at_once, 2);
  EXPECT_EQ(keys[1].per_minute, 60);
  EXPECT_EQ(keys.find("no key of these"), -1);
  for (const char* wrong : {"at-once=0", "at-once=", "at-once=x", "per-minute=-1", "per-hour=3"})
    EXPECT_THROW(read(fmt::format("{} team {}\n", kSesame, wrong)), Error) << wrong;
}

TEST_F(KeyFile, RequestsAtOnceAndAMinute) {
  const Keys keys = read(fmt::format("{} a at-once=2\n{} b per-minute=3\n", kSesame, kOther));
  KeyMeter meter(keys);
  EXPECT_EQ(meter.take(-1), nullptr);  // no keys are in force
  auto first = meter.take(0);
  const auto second = meter.take(0);
  EXPECT_THROW(meter.take(0), ApiError);
  first.reset();
  EXPECT_NO_THROW(meter.take(0));
  const KeyMeter::Clock::time_point begin{};
  for (int i = 0; i < 3; ++i) EXPECT_NO_THROW(meter.take(1, begin));
  try {
    meter.take(1, begin + seconds(5));
    FAIL() << "a fourth within the minute";
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status, 429);
    EXPECT_EQ(error.retry_seconds, 15);
  }
  EXPECT_NO_THROW(meter.take(1, begin + seconds(21)));
  EXPECT_THROW(meter.take(1, begin + seconds(22)), ApiError);
  for (int i = 0; i < 3; ++i) EXPECT_NO_THROW(meter.take(1, begin + seconds(1000)));
  EXPECT_THROW(meter.take(1, begin + seconds(1000)), ApiError);
}

}  // namespace
}  // namespace puna::server
