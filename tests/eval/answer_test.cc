#include "eval/answer.h"

#include <gtest/gtest.h>

namespace puna::eval {
namespace {

TEST(Normalise, CaseSpacesAndEndMarks) {
  EXPECT_EQ(normalise("  The\tBlue \n\n Circle. "), "the blue circle");
  EXPECT_EQ(normalise("\"**Paris**\"!"), "paris");
  EXPECT_EQ(normalise("-5"), "-5");
  EXPECT_EQ(normalise("./puna chat"), "/puna chat");
  EXPECT_EQ(normalise("--model DIR"), "--model dir");
  EXPECT_EQ(normalise("3.5, or 4"), "3.5, or 4");
  EXPECT_EQ(normalise("\xC3\x89t\xC3\xA9"), "\xC3\x89t\xC3\xA9");  // only ASCII letters change
  EXPECT_EQ(normalise(" .!? "), "");
  EXPECT_EQ(normalise(""), "");
}

TEST(ContainsWords, OnlyWholeWords) {
  EXPECT_TRUE(contains_words("a red circle", "red"));
  EXPECT_FALSE(contains_words("i am bored", "red"));
  EXPECT_FALSE(contains_words("reddish", "red"));
  EXPECT_TRUE(contains_words("bored, yet red", "red"));
  EXPECT_FALSE(contains_words("13 apples", "3"));
  EXPECT_TRUE(contains_words("(3)", "3"));
  EXPECT_TRUE(contains_words("use `puna chat --model DIR`", "--model"));
  EXPECT_FALSE(contains_words("puna training", "puna train"));
  EXPECT_TRUE(contains_words("x", "x"));
  EXPECT_FALSE(contains_words("x", "xy"));
  EXPECT_FALSE(contains_words("x", ""));
}

TEST(LastNumber, IsTheLastOne) {
  EXPECT_EQ(last_number("12 + 30 = 42"), 42);
  EXPECT_EQ(last_number("The answer is 7."), 7);
  EXPECT_EQ(last_number("-8"), -8);
  EXPECT_EQ(last_number("it is \xE2\x88\x92"
                        "3 degrees"),
            -3);
  EXPECT_EQ(last_number("3-5"), 5);
  EXPECT_EQ(last_number("3 - 5"), 5);
  EXPECT_EQ(last_number("from 2.5 to 3.75"), 3.75);
  EXPECT_EQ(last_number(".5"), 0.5);
  EXPECT_EQ(last_number("+6"), 6);
  EXPECT_EQ(last_number("$1,234,567.50 in all"), 1234567.5);
  EXPECT_EQ(last_number("1, 2, 3"), 3);
  EXPECT_EQ(last_number("1,23"), 23);
  EXPECT_EQ(last_number("1234,567"), 567);
  EXPECT_EQ(last_number("2e3"), 2000);
  EXPECT_EQ(last_number("1.5E-2"), 0.015);
  EXPECT_EQ(last_number("5 eggs and 5e"), 5);
  EXPECT_EQ(last_number("90%"), 90);
  EXPECT_EQ(last_number("4 of H2O"), 4);
}

TEST(LastNumber, SometimesThereIsNone) {
  EXPECT_FALSE(last_number("").has_value());
  EXPECT_FALSE(last_number("none, -, . or e").has_value());
  EXPECT_FALSE(last_number("x_1 H2").has_value());
  EXPECT_FALSE(last_number("1e999").has_value());
  EXPECT_EQ(last_number("5 or 1e999"), 5);
}

}  // namespace
}  // namespace puna::eval
