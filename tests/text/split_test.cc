// The hand-written split matcher against the published pattern in PCRE2.
#include "text/split.h"

#include <gtest/gtest.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "text/unicode_classes.h"
#include "text/utf8.h"

namespace puna::text {
namespace {

class Pattern {
 public:
  explicit Pattern(std::string_view pattern) {
    int error;
    size_t at;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP,
                              &error, &at, nullptr));
    match_.reset(pcre2_match_data_create_from_pattern(code_.get(), nullptr));
  }

  /// Bytes of the match at the front, 0 when there is none.
  size_t match(std::string_view text) const {
    const int rc = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0,
                               PCRE2_ANCHORED | PCRE2_NO_UTF_CHECK, match_.get(), nullptr);
    return rc > 0 ? pcre2_get_ovector_pointer(match_.get())[1] : 0;
  }

 private:
  std::unique_ptr<pcre2_code, void (*)(pcre2_code*)> code_{nullptr, pcre2_code_free};
  std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> match_{nullptr, pcre2_match_data_free};
};

bool is_surrogate(uint32_t code) { return code >= 0xD800 && code < 0xE000; }

/// Code points by class, of those that mean the same to PCRE2's (older) Unicode tables.
std::vector<std::vector<uint32_t>> agreed_characters(size_t* num_changed) {
  const std::vector<Pattern> patterns = [] {
    std::vector<Pattern> list;
    for (const char* p : {"[^\\p{L}\\p{M}\\p{N}\\s]", "[\\p{Lu}\\p{Lt}]", "\\p{Ll}", "[\\p{Lm}\\p{Lo}]", "\\p{M}",
                          "\\p{N}", "[^\\S\\r\\n]", "[\\r\\n]"})
      list.emplace_back(p);
    return list;
  }();
  const Pattern assigned("\\P{Cn}");
  std::vector<std::vector<uint32_t>> by_class(patterns.size());
  for (uint32_t code = 0; code < kNumCodePoints; ++code) {
    if (is_surrogate(code)) continue;
    std::string character;
    append_utf8(character, code);
    const auto c = static_cast<size_t>(char_classes()[code]);
    if (patterns[c].match(character) > 0)
      by_class[c].push_back(code);
    else if (assigned.match(character) > 0)
      ++*num_changed;
  }
  return by_class;
}

// Unicode hardly ever moves an assigned character to another class: nearly all differences are new characters.
TEST(SplitClasses, AgreeWithPcre2OnAssignedCharacters) {
  size_t num_changed = 0;
  const auto by_class = agreed_characters(&num_changed);
  EXPECT_LE(num_changed, 16u);
  for (const auto& characters : by_class) EXPECT_FALSE(characters.empty());
}

std::vector<std::string> pieces_of(std::string_view text) {
  std::vector<std::string> pieces;
  for (; !text.empty(); text.remove_prefix(pieces.back().size())) pieces.emplace_back(text.substr(0, next_piece(text)));
  return pieces;
}

TEST(Split, EqualsPcre2OnRandomText) {
  const Pattern pattern(kSplitPattern);
  size_t num_changed = 0;
  const auto by_class = agreed_characters(&num_changed);
  std::mt19937 random(7);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  constexpr std::string_view kAscii = "aZ'sStTrReEvVmMlLdD 0 1\r\n/\t.!-";
  for (int round = 0; round < 60000; ++round) {
    std::string text;
    const size_t num_classes = 1 + below(by_class.size());
    for (size_t n = 1 + below(24); n > 0; --n) {
      const auto& characters = by_class[below(num_classes)];
      if (below(3) == 0)
        append_utf8(text, characters[below(characters.size())]);
      else if (below(20) == 0)
        text += "'\xC5\xBF";  // the long s
      else
        text += kAscii[below(kAscii.size())];
    }
    for (std::string_view rest = text; !rest.empty();) {
      const size_t expected = pattern.match(rest), actual = next_piece(rest);
      ASSERT_EQ(actual, expected) << testing::PrintToString(text) << " at " << text.size() - rest.size();
      rest.remove_prefix(actual);
    }
  }
}

TEST(Split, KeepsContractionsDigitsAndSpaces) {
  using Pieces = std::vector<std::string>;
  EXPECT_EQ(pieces_of("I'm HTTPServer don't 12345"), Pieces({"I'm", " HTTPServer", " don't", " ", "123", "45"}));
  EXPECT_EQ(pieces_of("a   b\n\n  c"), Pieces({"a", "  ", " b", "\n\n", " ", " c"}));
  EXPECT_EQ(pieces_of("x /* y */\n/z"), Pieces({"x", " /*", " y", " */\n/", "z"}));
}

// One run of a class as long as Meta's cuts allow must not cost more than its length.
TEST(Split, LongRunsAreLinear) {
  for (const char* unit : {"a", "A", " ", "\n", "!", "\xCC\x81", "\xE6\xBC\xA2", " \n", "A\xCC\x81"}) {
    std::string text;
    while (text.size() < 4'000'000) text += unit;
    size_t num_pieces = 0;
    for (std::string_view rest = text; !rest.empty(); ++num_pieces) rest.remove_prefix(next_piece(rest));
    EXPECT_LE(num_pieces, 1u) << testing::PrintToString(unit);
  }
}

}  // namespace
}  // namespace puna::text
