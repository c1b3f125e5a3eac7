#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <vector>

#include "base/checked.h"
#include "base/dtype.h"
#include "base/error.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/suggest.h"
#include "tests/support/golden.h"

namespace puna {
namespace {

std::string error_of(std::string_view json) {
  try {
    parse_json(json, "x.json");
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Json, RefusesDuplicateKeysAndDeepNesting) {
  EXPECT_EQ(error_of(R"({"a":1,"b":{"a":2},"c":[{"a":1},{"a":2}]})"), "");
  EXPECT_EQ(error_of(R"({"a":1,"a":2})"), "[x.json] the key 'a' appears twice in one object");
  EXPECT_EQ(error_of(std::string(100, '[') + std::string(100, ']')), "");
  EXPECT_NE(error_of(std::string(1000000, '[')).find("nested deeper"), std::string::npos);
  EXPECT_NE(error_of("{\"a\": nope}").find("line 1, column"), std::string::npos);
}

TEST(Json, OrderedDocumentsAreSmallInMemory) {
  const auto objects = [](size_t count) {
    std::string text = "[";
    for (size_t i = 0; i < count; ++i) text += i == 0 ? "{}" : ",{}";
    return text + "]";
  };
  EXPECT_EQ(parse_ordered_json(objects(100'000), "body").size(), 100'000u);
  EXPECT_THROW(parse_ordered_json(objects(4'300'000), "body"), Error);
  EXPECT_EQ(parse_ordered_json("\"" + std::string(50'000'000, 'a') + "\"", "body").get_ref<const std::string&>().size(),
            50'000'000u)
      << "a picture in base64";
}

TEST(DType, EveryNameRoundTripsAndBlocksCount) {
  for (int i = 0; i <= static_cast<int>(DType::Q6_K); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(dtype_from_name(dtype_name(dtype)), dtype);
  }
  EXPECT_EQ(dtype_bytes(DType::Q8_0, 64), 68);
  EXPECT_EQ(dtype_bytes(DType::Q8_0, 63), std::nullopt);
  EXPECT_EQ(dtype_bytes(DType::F64, std::numeric_limits<int64_t>::max()), std::nullopt);
}

TEST(Checked, OverflowIsAbsentNotWrapped) {
  const int64_t big = int64_t{1} << 62;
  EXPECT_EQ(checked_mul(big, 2), std::nullopt);
  EXPECT_EQ(checked_add(big, big), std::nullopt);
  EXPECT_EQ(checked_numel(std::vector<int64_t>{2, 3}), 6);
  EXPECT_EQ(checked_numel(std::vector<int64_t>{}), 1);
  EXPECT_EQ(checked_numel(std::vector<int64_t>{big, 4}), std::nullopt);
  EXPECT_EQ(checked_numel(std::vector<int64_t>{-1}), std::nullopt);
}

TEST(Suggest, FindsTyposAndNothingElse) {
  const std::vector<std::string> names = {"generate", "inspect", "tokenize"};
  EXPECT_EQ(nearest_name("genrate", names), "generate");
  EXPECT_EQ(nearest_name("xyz", names), "");
  EXPECT_EQ(nearest_name("foo", std::vector<std::string>{"log"}), "") << "two of three letters differ";
  EXPECT_EQ(nearest_name("lr", std::vector<std::string>{"log", "learning_rate"}), "learning_rate");
  EXPECT_EQ(nearest_name("lag", std::vector<std::string>{"log"}), "log");
}

TEST(Progress, LinesFitTheTerminal) {
  EXPECT_EQ(fitted("label", " 50%", 20), "label 50%");
  EXPECT_EQ(fitted("label", " 50%", 9), "label 50%");
  EXPECT_EQ(fitted("building a/long/path", " 50%", 14), "bui...path 50%");
  EXPECT_EQ(fitted("label", " 50%, 12 left", 8), "... 50%,");
  EXPECT_EQ(fitted("", "0123456789", 4), "0123");
  for (size_t columns = 1; columns < 20; ++columns) {
    const std::string line = fitted("\u00fc\u00fc\u00fc\u00fc\u00fc\u00fc", " 50%", columns);
    EXPECT_LE(line.size(), columns);
    EXPECT_EQ(std::count(line.begin(), line.end(), '\xc3'), std::count(line.begin(), line.end(), '\xbc')) << line;
  }
}

TEST(Check, ThrowsWithPlaceAndValues) {
  const int a = 1;
  EXPECT_THROW(PUNA_CHECK(a == 2, "a is {}", a), InternalError);
}

TEST(Memory, FiguresArePlausible) {
  EXPECT_GT(available_memory_bytes(), 0);
  EXPECT_GT(resident_memory_bytes(), 1 << 20);
  EXPECT_EQ(format_bytes(17), "17 B");
  EXPECT_EQ(format_bytes(int64_t{3} << 29), "1.50 GiB");
}

TEST(Memory, PageCacheOfAControlGroupCountsAsFree) {
  test::TemporaryDirectory root;
  const auto write = [&](const std::string& name, const std::string& text) {
    std::filesystem::create_directories((root.path() / name).parent_path());
    std::ofstream(root.path() / name) << text;
  };
  const auto left = [&](const char* group) { return cgroup_memory_left(root.path().string(), group); };
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(left("/"), kNone);
  write("a/memory.max", "1000\n");
  write("a/memory.current", "900\n");
  write("a/memory.stat", "anon 300\nfile 600\nactive_file 200\ninactive_file 350\n");
  write("a/b/memory.max", "max\n");
  EXPECT_EQ(left("/a"), 1000 - (900 - 550));
  EXPECT_EQ(left("/a/b"), left("/a"));
  EXPECT_EQ(left(""), kNone);
  write("a/b/memory.max", "100\n");
  write("a/b/memory.current", "300\n");
  EXPECT_EQ(left("/a/b"), 0);
  write("memory/memory.limit_in_bytes", "500\n");
  write("memory/memory.usage_in_bytes", "450\n");
  write("memory/memory.stat", "active_file 1\ntotal_active_file 30\ntotal_inactive_file 20\n");
  EXPECT_EQ(left("/"), 500 - (450 - 50));
}

TEST(AllClose, FailsOnNanSizesAndDistance) {
  const std::vector<float> a = {1, 2}, near = {1, 2.001f}, nan = {1, std::numeric_limits<float>::quiet_NaN()};
  EXPECT_TRUE(test::all_close(a, near, 1e-2));
  EXPECT_FALSE(test::all_close(a, near, 1e-4));
  EXPECT_FALSE(test::all_close(nan, nan, 1e9));
  EXPECT_FALSE(test::all_close(a, std::vector<float>{1}, 1));
}

}  // namespace
}  // namespace puna
