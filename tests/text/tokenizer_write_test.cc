#include "text/tokenizer_write.h"

#include <gtest/gtest.h>

#include <random>

#include "base/error.h"
#include "io/file.h"
#include "tests/support/golden.h"
#include "text/bpe_trainer.h"
#include "text/special_names.h"
#include "text/tokenizer.h"

namespace puna::text {
namespace {

using Strings = std::vector<std::string>;

/// Texts of a few letters: all the ways in which tokens overlap.
std::string few_letters(std::mt19937& random, size_t size) {
  std::string text;
  const unsigned letters = 1 + random() % 4;
  for (size_t i = 0; i < size; ++i) text += static_cast<char>('a' + random() % letters);
  return text;
}

Strings trained_tokens(std::mt19937& random, int64_t num_tokens) {
  PieceCounts counts;
  for (int i = 0; i < 40; ++i) counts.add_text(few_letters(random, 1 + random() % 60));
  counts.add_text("Some words, 12 numbers (345), some \xE4\xBD\xA0\xE5\xA5\xBD \xE4\xBD\xA0\xE5\xA5\xBD words.\n\n");
  return train_bpe(counts, {.num_tokens = num_tokens}).tokens;
}

std::shared_ptr<const Tokenizer> from_ranks(const Strings& tokens, const Strings& specials) {
  const test::TemporaryDirectory dir;
  io::write_file(dir.path() / "ranks", rank_file(tokens));
  return Tokenizer::from_rank_file(dir.path() / "ranks", specials);
}

TEST(TokenizerWrite, RankFileHasMetasLines) {
  const Strings tokens = {"!", "ab", "abc", std::string("\0\xFF", 2)};
  EXPECT_EQ(rank_file(tokens), "IQ== 0\nYWI= 1\nYWJj 2\nAP8= 3\n");
}

TEST(TokenizerWrite, CompactSpecialsAreAmongMetasInTheirOrder) {
  const auto full = meta_special_names(), compact = compact_special_names();
  EXPECT_EQ(compact.size(), 21u);
  auto at = full.begin();
  for (const std::string& name : compact) {
    at = std::find(at, full.end(), name);
    ASSERT_NE(at, full.end()) << name;
  }
}

TEST(TokenizerWrite, RankFileAndJsonGiveTheSameIds) {
  std::mt19937 random(11);
  for (int round = 0; round < 60; ++round) {
    const Strings tokens = trained_tokens(random, 256 + static_cast<int64_t>(random() % 80));
    const Strings specials = compact_special_names();
    const auto ranks = from_ranks(tokens, specials);
    const auto json = Tokenizer::from_hf_json(hf_tokenizer_json(tokens, specials), "json");
    ASSERT_EQ(ranks->vocab_size(), json->vocab_size());
    for (TokenId id = 0; id < json->vocab_size(); ++id) {
      ASSERT_EQ(ranks->token_bytes(id), json->token_bytes(id));
      ASSERT_EQ(ranks->is_special(id), id >= std::ssize(tokens));
      ASSERT_EQ(json->is_special(id), id >= std::ssize(tokens));
    }
    for (int i = 0; i < 200; ++i) {
      std::string text = few_letters(random, 1 + random() % 50);
      if (i % 5 == 0) text += "<|eot|> some \xE4\xBD\xA0\xE5\xA5\xBD\xFF 345<|header_start|>";
      const auto ids = ranks->encode(text, Specials::kParse);
      ASSERT_EQ(ids, json->encode(text, Specials::kParse)) << text;
      ASSERT_EQ(json->decode(ids), text);
    }
  }
}

TEST(TokenizerWrite, DirectoryOpensAsATokenizer) {
  std::mt19937 random(5);
  const Strings tokens = trained_tokens(random, 290);
  const test::TemporaryDirectory dir;
  write_tokenizer(dir.path(), tokens, meta_special_names());
  const auto whole = Tokenizer::open(dir.path()), ranks = Tokenizer::open(dir.path() / "tokenizer.model");
  EXPECT_EQ(whole->vocab_size(), 290 + 2048);
  EXPECT_EQ(whole->special("<|begin_of_text|>"), 290);
  EXPECT_EQ(whole->special("<|eot|>"), ranks->special("<|eot|>"));
  EXPECT_EQ(whole->special("<|patch|>"), ranks->special("<|patch|>"));
  EXPECT_EQ(whole->encode("abcab some words"), ranks->encode("abcab some words"));
}

TEST(TokenizerWrite, RefusesWhatIsNoVocabulary) {
  EXPECT_THROW(hf_tokenizer_json({"a", "b"}, {}), Error);  // bytes are missing
  std::mt19937 random(5);
  Strings tokens = trained_tokens(random, 260);
  tokens.push_back(tokens.back());
  EXPECT_THROW(hf_tokenizer_json(tokens, {}), Error);
}

}  // namespace
}  // namespace puna::text
