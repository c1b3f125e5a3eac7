#include "text/bpe_trainer.h"

#include <gtest/gtest.h>

#include <set>

#include "base/interrupt.h"
#include "text/vocabulary.h"

namespace puna::text {
namespace {

using Strings = std::vector<std::string>;

PieceCounts counts_of(const std::vector<std::pair<std::string, int64_t>>& pieces) {
  PieceCounts counts;
  for (const auto& [piece, count] : pieces) counts.add(piece, key_of(piece), count);
  return counts;
}

Strings learnt(const PieceCounts& counts, BpeOptions options) {
  options.num_tokens += 256;
  const auto result = train_bpe(counts, options);
  return {result.tokens.begin() + 256, result.tokens.end()};
}

TEST(BpeTrainer, BytesComeFirstInMetasOrder) {
  const auto tokens = train_bpe(counts_of({{"ab", 9}}), {.num_tokens = 256}).tokens;
  ASSERT_EQ(tokens.size(), 256u);
  EXPECT_EQ(tokens[0], "!");
  EXPECT_EQ(tokens[93], "~");
  EXPECT_EQ(tokens[94], "\xA1");
  EXPECT_EQ(tokens[188], std::string(1, '\0'));
  EXPECT_EQ(tokens[220], " ");
  EXPECT_EQ(tokens[255], "\xAD");
  EXPECT_EQ(std::set<std::string>(tokens.begin(), tokens.end()).size(), 256u);
}

// aa occurs 4 times (overlaps count). Then (aa, a) and (a, b) occur twice; a has the lower rank, so ab comes next.
TEST(BpeTrainer, HandWorkedPiece) {
  const auto result = train_bpe(counts_of({{"aaabdaaabac", 1}}), {.num_tokens = 300});
  EXPECT_EQ(Strings(result.tokens.begin() + 256, result.tokens.end()), (Strings{"aa", "ab", "aaab"}));
  EXPECT_EQ(result.text_tokens, 5);  // aaab d aaab a c
}

// es 9, est 9, lo 7, low 7; of (n, e), (e, w) and (w, est), 6 each, e has the lowest rank; n is before ew.
TEST(BpeTrainer, HandWorkedWords) {
  const auto counts = counts_of({{"low", 5}, {"lower", 2}, {"newest", 6}, {"widest", 3}});
  EXPECT_EQ(learnt(counts, {.num_tokens = 8}), (Strings{"es", "est", "lo", "low", "ew", "new", "newest", "dest"}));
  EXPECT_EQ(train_bpe(counts, {.num_tokens = 263}).text_tokens, 5 + 2 * 3 + 6 + 3 * 4);
}

TEST(BpeTrainer, StopsWhenAsked) {
  const std::atomic<bool> stop = true;
  EXPECT_THROW(train_bpe(counts_of({{"ab", 9}}), {.num_tokens = 257, .interrupt = &stop}), Interrupted);
}

TEST(BpeTrainer, StopsAtTheAskedNumberAndAtTheMinimumFrequency) {
  const auto counts = counts_of({{"ab", 5}, {"cd", 3}, {"ef", 2}, {"gh", 1}});
  EXPECT_EQ(learnt(counts, {.num_tokens = 2}), (Strings{"ab", "cd"}));
  EXPECT_EQ(learnt(counts, {.num_tokens = 99}), (Strings{"ab", "cd", "ef"}));
  EXPECT_EQ(learnt(counts, {.num_tokens = 99, .min_frequency = 1}), (Strings{"ab", "cd", "ef", "gh"}));
  EXPECT_EQ(learnt(counts, {.num_tokens = 99, .min_frequency = 3}), (Strings{"ab", "cd"}));
}

TEST(BpeTrainer, NoTokenIsLongerThanAllowed) {
  const auto counts = counts_of({{"aaaaaaaaaaaaaaaa", 4}});
  EXPECT_EQ(learnt(counts, {.num_tokens = 9}), (Strings{"aa", "aaaa", "aaaaaaaa", "aaaaaaaaaaaaaaaa"}));
  EXPECT_EQ(learnt(counts, {.num_tokens = 9, .max_token_bytes = 7}), (Strings{"aa", "aaaa"}));
  EXPECT_EQ(learnt(counts, {.num_tokens = 9, .max_token_bytes = 2}), (Strings{"aa"}));
}

TEST(BpeTrainer, SingleDigitsJoinNothing) {
  const auto counts = counts_of({{"123", 9},
                                 {"12", 8},
                                 {" 1", 7},
                                 {"\xC2\xB2"
                                  "1",
                                  6},
                                 {"ab", 2}});
  EXPECT_EQ(learnt(counts, {.num_tokens = 9, .single_digits = true}), (Strings{"\xC2\xB2", "ab"}));
  EXPECT_EQ(learnt(counts, {.num_tokens = 1}), Strings{"12"});
}

// abc is made of (ab, c) and of (a, bc); it is one token, and what was joined with it before joins it again.
TEST(BpeTrainer, OneTokenOfTwoMakings) {
  const auto counts = counts_of({{"abcx", 40}, {"ab", 30}, {"zbc", 20}, {"zbcq", 60}});
  const auto tokens = learnt(counts, {.num_tokens = 20});
  EXPECT_EQ(std::set<std::string>(tokens.begin(), tokens.end()).size(), tokens.size());
}

}  // namespace
}  // namespace puna::text
