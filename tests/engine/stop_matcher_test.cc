#include "engine/stop_matcher.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace puna::engine {
namespace {

struct Case {
  std::string text;
  std::vector<std::string> stops;
  std::string shown;
  int matched;
};

const std::vector<Case> kCases = {
    {"hello END rest", {"END"}, "hello ", 0},
    {"no stop here", {"END"}, "no stop here", -1},
    {"almost EN", {"END"}, "almost EN", -1},
    {"aaab and more", {"aab"}, "a", 0},
    {"ENDEND", {"END"}, "", 0},
    {"abcabd", {"abd", "abcx"}, "abc", 0},
    {"one two", {"two", "one two"}, "", 1},
    {"x\n\ny", {"\n\n", "y"}, "x", 0},
    {"z\u00FCrich \u00FC stop", {"\u00FC s"}, "z\u00FCrich ", 0},
    {"mississippi", {"issip"}, "miss", 0},
};

std::string run(StopMatcher& matcher, const std::vector<std::string>& pieces) {
  std::string shown;
  for (const std::string& piece : pieces) shown += matcher.push(piece);
  return shown + matcher.finish();
}

TEST(StopMatcher, SameTextForEverySplitInTwo) {
  for (const Case& c : kCases)
    for (size_t i = 0; i <= c.text.size(); ++i) {
      StopMatcher matcher(c.stops);
      EXPECT_EQ(run(matcher, {c.text.substr(0, i), c.text.substr(i)}), c.shown) << c.text << " at " << i;
      EXPECT_EQ(matcher.matched(), c.matched) << c.text << " at " << i;
    }
}

TEST(StopMatcher, SameTextByteByByte) {
  for (const Case& c : kCases) {
    StopMatcher matcher(c.stops);
    std::vector<std::string> bytes;
    for (const char byte : c.text) bytes.push_back(std::string(1, byte));
    EXPECT_EQ(run(matcher, bytes), c.shown) << c.text;
    EXPECT_EQ(matcher.matched(), c.matched) << c.text;
  }
}

TEST(StopMatcher, HoldsBackNoMoreThanNeeded) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.push("abcE"), "abc");
  EXPECT_EQ(matcher.push("x"), "Ex");
  EXPECT_EQ(matcher.push("EN"), "");
  EXPECT_EQ(matcher.finish(), "EN");
}

TEST(StopMatcher, NothingComesAfterAStop) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.push("aEND b"), "a");
  EXPECT_EQ(matcher.push("more"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, RefusesAnEmptyStop) { EXPECT_THROW(StopMatcher({"a", ""}), UsageError); }

}  // namespace
}  // namespace puna::engine
