// Masks against trying every token, on random grammars and vocabularies.
#include <gtest/gtest.h>

#include "base/error.h"
#include "grammar/gbnf.h"
#include "tests/grammar/support.h"

namespace puna::grammar {
namespace {

using test::allowed;
using test::kEndToken;
using test::mask_of;

// A random expression over the letters a to d and the rules r0 to r<rules - 1>; r<k> begins with calls of later rules
// alone, so that nothing is left-recursive.
class RandomGrammar {
 public:
  RandomGrammar(std::mt19937_64& random, int rules) : random_(random), rules_(rules) {}

  std::string text() {
    std::string text = fmt::format("root ::= {}\n", choice(3, 0));
    for (int rule = 0; rule < rules_; ++rule) text += fmt::format("r{} ::= {}\n", rule, choice(2, rule + 1));
    return text;
  }

 private:
  uint64_t below(uint64_t n) { return random_() % n; }

  // `first` is the least rule that may be called; after a letter any may be.
  std::string choice(int depth, int first) {
    std::string text = sequence(depth, first);
    for (uint64_t more = below(3); more > 0; --more) text += fmt::format(" | {}", sequence(depth, first));
    return text;
  }
  std::string sequence(int depth, int first) {
    std::string text;
    for (uint64_t parts = below(4); parts > 0; --parts) {
      const uint64_t kind = below(6);
      if (kind < 2) {
        text += fmt::format(" \"{}\"", static_cast<char>('a' + below(4))), first = 0;
      } else if (kind == 2) {
        text += below(2) ? " [a-c]" : " [^ab\\u00e9]", first = 0;
      } else if (kind == 3 && depth > 0) {
        static const char* const kCounts[] = {"", "*", "+", "?", "{2}", "{1,3}", "{2,}"};
        text += fmt::format(" ({}){}", choice(depth - 1, first), kCounts[below(7)]);
      } else if (first < rules_) {
        text += fmt::format(" r{}", first + static_cast<int>(below(static_cast<uint64_t>(rules_ - first))));
      }
    }
    return text;
  }

  std::mt19937_64& random_;
  int rules_;
};

// Brute force: each token by the bytes it adds.
void expect_exact_mask(const CompiledGrammar& grammar, const GrammarState& state, const std::string& about) {
  const auto mask = mask_of(grammar, state);
  for (size_t id = 0; id < grammar.vocabulary().size(); ++id) {
    const auto token = static_cast<TokenId>(id);
    GrammarState copy = state;
    const bool expected =
        token == kEndToken ? state.is_complete() : copy.accept_bytes(grammar.vocabulary().bytes(token));
    ASSERT_EQ(allowed(mask, token), expected) << about << "\ntoken '" << grammar.vocabulary().bytes(token) << "'";
    GrammarState other = state;
    ASSERT_EQ(other.accept(token), expected) << about;
  }
}

TEST(Masks, EqualTryingEveryTokenOnRandomGrammars) {
  std::mt19937_64 random(1);
  int compiled = 0, steps = 0;
  for (int round = 0; round < 400; ++round) {
    std::vector<std::string> words;
    for (int i = 0; i < 60; ++i) {
      std::string word;
      for (uint64_t length = 2 + random() % 4; length > 0; --length) {
        const uint64_t c = random() % 12;
        word += c < 10 ? std::string(1, static_cast<char>('a' + c % 5)) : c == 10 ? "\xC3\xA9" : "\xE2\x82\xAC";
      }
      words.push_back(word);
    }
    const auto vocabulary = test::vocabulary(words);
    const std::string text = RandomGrammar(random, 3).text();
    std::shared_ptr<const CompiledGrammar> grammar;
    try {
      grammar = test::gbnf(text, vocabulary);
    } catch (const Error&) {  // no text matches, or a rule may be empty before it calls itself
      continue;
    }
    ++compiled;
    GrammarState state = grammar->start();
    std::string so_far;
    for (int step = 0; step < 12; ++step, ++steps) {
      expect_exact_mask(*grammar, state, text + "after '" + so_far + "'");
      if (HasFatalFailure()) return;
      const auto mask = mask_of(*grammar, state);
      std::vector<TokenId> choices;
      for (size_t id = 1; id < vocabulary->size(); ++id)
        if (allowed(mask, static_cast<TokenId>(id))) choices.push_back(static_cast<TokenId>(id));
      if (choices.empty()) {
        EXPECT_TRUE(state.must_end()) << text << "after '" << so_far << "'";
        EXPECT_TRUE(state.is_complete()) << text << "after '" << so_far << "'";
        break;
      }
      const TokenId token = choices[random() % choices.size()];
      ASSERT_TRUE(state.accept(token));
      so_far += vocabulary->bytes(token);
    }
  }
  EXPECT_GT(compiled, 150);
  EXPECT_GT(steps, 800);
}

// A matcher of another kind: all splits of a text over the alternatives, by plain backtracking.
TEST(Masks, NestedTextsOfRecursiveRulesAreExact) {
  const auto grammar = test::gbnf("root ::= list\nlist ::= \"(\" (list | \"x\")* \")\" | \"[\" list? \"]\"",
                                  test::vocabulary({"((", "))", ")]", "x)", "([", "]]", "xx", "()", "[]"}));
  const auto reference = [](std::string text) {  // replaces innermost lists until none is left
    for (bool changed = true; changed;) {
      changed = false;
      for (size_t open = 0; open < text.size(); ++open) {
        if (text[open] != '(' && text[open] != '[') continue;
        const size_t close = text.find_first_of("()[]", open + 1);
        if (close == text.npos || text[close] != (text[open] == '(' ? ')' : ']')) continue;
        const std::string inner = text.substr(open + 1, close - open - 1);
        const bool fits =
            text[open] == '(' ? inner.find_first_not_of("xL") == inner.npos : inner.empty() || inner == "L";
        if (!fits) continue;
        text = fmt::format("{}L{}", text.substr(0, open), text.substr(close + 1));
        changed = true;
        break;
      }
    }
    return text == "L";
  };
  const std::string letters = "()[]x";
  int right = 0;
  for (int number = 0; number < 5 * 5 * 5 * 5 * 5 * 5; ++number) {
    std::string text;
    for (int rest = number; rest > 0; rest /= 5) text += letters[static_cast<size_t>(rest % 5)];
    ASSERT_EQ(test::matches(*grammar, text), reference(text)) << text;
    right += reference(text);
  }
  EXPECT_GT(right, 30);
}

TEST(Masks, TokensThatSpanSeveralRules) {
  const auto grammar =
      test::gbnf("root ::= \"{\" string \":\" string \"}\"\nstring ::= \"\\\"\" [a-z0-9_-]* \"\\\"\"",
                 test::vocabulary({"{\"", "\":\"", "\"}", "a\":\"b\"}", "\"}x", "ab\":\"", "\"\"", "\"{"}));
  GrammarState state = grammar->start();
  for (const char* piece : {"", "{", "\"", "a", "b", "\"", ":", "\"c", "\"", "}"}) {
    ASSERT_TRUE(state.accept_bytes(piece));
    expect_exact_mask(*grammar, state, piece);
  }
  EXPECT_TRUE(state.must_end());
}

TEST(Masks, ACopyGoesItsOwnWay) {
  const auto grammar = test::gbnf("root ::= \"ab\" | \"ac\"", test::vocabulary());
  GrammarState state = grammar->start();
  ASSERT_TRUE(state.accept_bytes("a"));
  const GrammarState before = state;
  ASSERT_TRUE(state.accept_bytes("b"));
  EXPECT_FALSE(GrammarState(state).accept_bytes("c"));
  EXPECT_TRUE(GrammarState(before).accept_bytes("c"));
  EXPECT_FALSE(before.is_complete());
}

TEST(Masks, EndTokensAreAllowedWhereTheTextIsComplete) {
  const auto grammar = test::gbnf("root ::= \"a\"+", test::vocabulary());
  GrammarState state = grammar->start();
  EXPECT_FALSE(allowed(mask_of(*grammar, state), kEndToken));
  EXPECT_FALSE(state.accept(kEndToken));
  ASSERT_TRUE(state.accept_bytes("a"));
  EXPECT_TRUE(allowed(mask_of(*grammar, state), kEndToken));
  EXPECT_FALSE(state.must_end());
  ASSERT_TRUE(state.accept(kEndToken));
  EXPECT_TRUE(state.is_finished());
  EXPECT_FALSE(state.accept_bytes("a"));
  for (const uint64_t word : mask_of(*grammar, state)) EXPECT_EQ(word, 0u);
}

TEST(Masks, ForcedBytesAreThoseWithoutAChoice) {
  const auto grammar = test::gbnf("root ::= \"{\\\"name\\\": \" (\"true\" | \"false\") \"}\"?", test::vocabulary());
  GrammarState state = grammar->start();
  EXPECT_EQ(state.forced_bytes(), "{\"name\": ");
  EXPECT_EQ(state.forced_bytes(4), "{\"na");
  ASSERT_TRUE(state.accept_bytes("{\"name\": t"));
  EXPECT_EQ(state.forced_bytes(), "rue");  // then the text may end
  ASSERT_TRUE(state.accept_bytes("rue"));
  EXPECT_EQ(state.forced_bytes(), "");
}

TEST(Masks, DeepNestingAndLongTextsStayCheap) {
  const auto grammar = test::gbnf("root ::= \"(\" root* \")\" ", test::vocabulary({"((((", "))))"}));
  GrammarState state = grammar->start();
  const std::string open(20'000, '('), close(20'000, ')');
  ASSERT_TRUE(state.accept_bytes(open));
  EXPECT_FALSE(state.is_complete());
  ASSERT_TRUE(state.accept_bytes(close));
  EXPECT_TRUE(state.must_end());
  const auto spaces = test::gbnf("root ::= \"x\" ws \"y\"\nws ::= \" \" ws | \"\"", test::vocabulary());
  EXPECT_TRUE(test::matches(*spaces, fmt::format("x{:100000}y", "")));
}

// As many readings as there are binary trees, but one set of items.
TEST(Masks, AmbiguityDoesNotMultiply) {
  const auto grammar = test::gbnf("root ::= \"a\" | root root", test::vocabulary());
  EXPECT_TRUE(test::matches(*grammar, std::string(60, 'a')));
  const auto nested =
      test::gbnf("root ::= x x x x x x x x\nx ::= y y y y | \"\"\ny ::= \"a\"? \"a\"?", test::vocabulary());
  EXPECT_TRUE(test::matches(*nested, std::string(64, 'a')));
  EXPECT_FALSE(test::matches(*nested, std::string(65, 'a')));
}

/// A grammar of rules that a text may all be in at once.
std::string ambiguous(int rules) {
  std::string root = "root ::= (", text;
  for (int i = 0; i < rules; ++i) {
    root += fmt::format("{}r{}", i == 0 ? "" : " | ", i);
    text += fmt::format("r{0} ::= \"a\" r{0} \"b\" | \"a\" [a-c]* | \"c\"\n", i);
  }
  return root + ")+\n" + text;
}

TEST(Masks, AmbiguousGrammarsAreRefusedInTime) {
  const auto words = test::synthetic_vocabulary(20'000, 3);
  const auto begin = std::chrono::steady_clock::now();
  int refused = 0;
  for (const int rules : {50, 500, 1500, 4000}) {
    try {
      const auto grammar = CompiledGrammar::compile(read_gbnf(ambiguous(rules), "test"), words);
      GrammarState state = grammar->start();
      for (int i = 0; i < 100; ++i) {
        const auto before = std::chrono::steady_clock::now();
        mask_of(*grammar, state);
        ASSERT_TRUE(state.accept_bytes("a"));
        EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(5)) << rules;
      }
    } catch (const Error& error) {
      ++refused;
      EXPECT_NE(std::string(error.what()).find("ambiguous"), std::string::npos) << error.what();
    }
  }
  EXPECT_GE(refused, 2);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
}

TEST(Masks, BytesCountWhatWasLearned) {
  const auto words = test::synthetic_vocabulary(20'000, 3);
  const auto grammar = CompiledGrammar::compile(read_gbnf("root ::= [a-z]* | \"x\" root \"y\"\n", "test"), words,
                                                std::chrono::microseconds(0));
  const size_t before = grammar->bytes();
  GrammarState state = grammar->start();
  mask_of(*grammar, state);
  EXPECT_GT(grammar->bytes(), before + words->mask_words() * 8);
}

}  // namespace
}  // namespace puna::grammar
