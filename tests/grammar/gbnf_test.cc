#include "grammar/gbnf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/grammar/support.h"

namespace puna::grammar {
namespace {

using test::gbnf;
using test::matches;

struct Case {
  const char* grammar;
  std::vector<const char*> right, wrong;
};

TEST(Gbnf, TheNotationMeansWhatItSays) {
  const std::vector<Case> cases = {
      {"root ::= \"a\" | \"bc\" # comment | \"d\"\n", {"a", "bc"}, {"", "b", "d", "ab"}},
      {"root ::=\n  \"a\"\n  | b\n\nb ::= \"b\"\n", {"a", "b"}, {"ab"}},
      {"root ::= [a-cx]{2,3}", {"ab", "xcb"}, {"a", "abcx", "dd"}},
      {"root ::= [^a-c\\n]+", {"d", "\xC3\xA9\xF0\x9F\x98\x80"}, {"a", "\n", "\xC3", "\xED\xA0\x80", "\xC0\x80"}},
      {"root ::= [\xC3\xA0-\xC3\xBC]", {"\xC3\xA9"}, {"\xC3\x9F", "\xC3\xBD", "e"}},
      {"root ::= \"x\"{2} \"y\"{1,} (\"z\" | \"w\")? \"v\"*", {"xxy", "xxyyzvv", "xxyw"}, {"xy", "xx", "xxyzw"}},
      {"root ::= \"\\\"\\\\\\n\\x41\\u00e9\\U0001F600\"", {"\"\\\nA\xC3\xA9\xF0\x9F\x98\x80"}, {"A"}},
      {"root ::= [\\]\\-^a]", {"]", "-", "^", "a"}, {"b", "\\"}},
      {"root ::= . .", {"ab", "\xE2\x82\xAC\n"}, {"a", "abc"}},
      {"root ::= e\ne ::= e \"+\" t | t\nt ::= \"n\" | \"(\" e \")\"", {"n", "n+n+(n+n)"}, {"n+", "+n", "(n"}},
      {"root ::= \"a\"{0} \"b\"", {"b"}, {"ab"}}};
  for (const Case& c : cases) {
    const auto grammar = gbnf(c.grammar, test::vocabulary());
    for (const char* text : c.right) EXPECT_TRUE(matches(*grammar, text)) << c.grammar << "\n" << text;
    for (const char* text : c.wrong) EXPECT_FALSE(matches(*grammar, text)) << c.grammar << "\n" << text;
  }
}

void expect_refused(std::string_view text, const char* message) {
  try {
    gbnf(text, test::vocabulary());
    ADD_FAILURE() << text.substr(0, 100);
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr(message)) << text.substr(0, 100);
  }
}

TEST(Gbnf, ErrorsSayWhatAndWhere) {
  expect_refused("", "there is no rule 'root'");
  expect_refused("a ::= \"x\"", "there is no rule 'root'");
  expect_refused("root ::= digit\ndigits ::= [0-9]", "did you mean 'digits'?");
  expect_refused("root ::= \"a\"\n\nroot ::= \"b\"", "line 3: the rule 'root' is defined twice");
  expect_refused("root ::= (\"a\"", "')' is missing");
  expect_refused("root ::= \"a", "line 1: '\"' is missing");
  expect_refused("root ::= [a", "']' is missing");
  expect_refused("root ::= [b-a]", "wrong order");
  expect_refused("root ::= \"\\q\"", "unknown escape '\\q'");
  expect_refused("root ::= \"\\ud800\"", "is no character");
  expect_refused("root ::= \"a\"{3,2}", "wrong order");
  expect_refused("root ::= \"a\"{99999999999}", "above 100000");
  expect_refused("root ::= \"a\" !", "'!' is not part of the notation");
  expect_refused("root ::= \"\xFF\"", "not valid UTF-8");
  expect_refused("root = \"a\"", "'::=' is missing");
  expect_refused("root ::= \"a\" root", "no finite text matches");
  expect_refused("root ::= []", "no finite text matches");
}

TEST(Gbnf, LeftRecursionIsNamed) {
  expect_refused("root ::= a\na ::= b \"x\" | \"y\"\nb ::= a \"z\" | \"w\"", "can begin with itself (left recursion)");
  expect_refused("root ::= a\na ::= n a \"x\" | \"y\"\nn ::= \"m\"?", "the rule 'a' can begin with itself");
}

// Each would cost minutes, gigabytes or the stack without a limit.
TEST(Gbnf, HostileGrammarsAreRefusedSoon) {
  const std::string many = "{1000}";
  expect_refused("root ::= (((\"a\"" + many + ")" + many + ")" + many + ")", "too large");
  expect_refused("root ::= (\"\"{100000}){100000}", "too large");
  expect_refused(fmt::format("root ::= {}", std::string(100'000, '(')), "nested deeper");
  expect_refused(fmt::format("root ::= \"a\"{}", std::string(100'000, '*')), "repetitions follow each other");
  expect_refused("root ::= [ab]* \"a\" [ab]{24}", "too large");
  expect_refused("root ::= (\"a\"?){20000}", "too large");
  expect_refused(std::string(2 << 20, ' '), "more than");
  std::string chain = "root ::= r0\n";
  for (int i = 0; i < 30'000; ++i) chain += fmt::format("r{} ::= r{} \"a\"\n", i, i + 1);
  expect_refused(chain, "rules");
}

TEST(Gbnf, LongChainsOfRulesCostNoStack) {
  std::string chain = "root ::= r0\n";
  for (int i = 0; i < 15'000; ++i) chain += fmt::format("r{} ::= \"a\"? r{}\n", i, i + 1);
  chain += "r15000 ::= \"b\"\n";
  try {
    EXPECT_TRUE(matches(*gbnf(chain, test::vocabulary()), "aab"));
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("too large"));
  }
}

// Every letter may be the middle: the readings grow with the text.
TEST(Gbnf, TextsThatOutgrowTheLimitsAreAnError) {
  const auto grammar = gbnf("root ::= \"x\" root \"x\" | \"x\"", test::vocabulary());
  EXPECT_TRUE(matches(*grammar, std::string(1001, 'x')));
  EXPECT_FALSE(matches(*grammar, std::string(1000, 'x')));
  EXPECT_THROW(matches(*grammar, std::string(20'000, 'x')), Error);
}

}  // namespace
}  // namespace puna::grammar
