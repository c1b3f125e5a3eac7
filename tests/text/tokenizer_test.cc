// Exactness of encoding and decoding on the golden strings of every set.
#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/golden.h"
#include "tests/text/meta_tokenizer.h"

namespace puna::text {
namespace {

using test::golden_sets;

TEST(TokenizerGolden, EncodesEveryString) {
  const auto tokenizer = test::meta_tokenizer();
  if (!tokenizer) GTEST_SKIP() << test::kNoRankFile;
  for (const auto& set : golden_sets()) {
    const Json golden = read_json_file(set / "tokenizer/encode.json");
    for (const Json& row : golden["rows"]) {
      const std::string text = test::golden_text(row);
      const auto ids = tokenizer->encode(text);
      EXPECT_EQ(ids, test::golden_ids(row, "ids")) << text.substr(0, 100);
      EXPECT_EQ(tokenizer->decode(ids), text);
      if (row.contains("repeat")) continue;
      const char* key = row.contains("ids_special") ? "ids_special" : "ids";
      EXPECT_EQ(tokenizer->encode(text, Specials::kParse), test::golden_ids(row, key)) << text;
    }
  }
}

TEST(TokenizerGolden, DecodesEverySequence) {
  const auto tokenizer = test::meta_tokenizer();
  if (!tokenizer) GTEST_SKIP() << test::kNoRankFile;
  for (const auto& set : golden_sets()) {
    for (const Json& row : read_json_file(set / "tokenizer/decode.json")) {
      const auto ids = row["ids"].get<std::vector<TokenId>>();
      EXPECT_EQ(test::to_hex(tokenizer->decode(ids)), row["bytes_hex"].get<std::string>());
      StreamDecoder stream(tokenizer);
      std::string text;
      for (TokenId id : ids) text += stream.push(id);
      EXPECT_EQ(text + stream.finish(), row["text"].get<std::string>());
    }
  }
}

TEST(TokenizerGolden, EncodesInvalidUtf8AsTiktokenDoes) {
  const auto tokenizer = test::meta_tokenizer();
  if (!tokenizer) GTEST_SKIP() << test::kNoRankFile;
  for (const auto& set : golden_sets()) {
    const Json golden = read_json_file(set / "tokenizer/bytes.json");
    for (const Json& row : golden["rows"]) {
      const std::string bytes = test::from_hex(row["bytes_hex"].get<std::string>());
      const auto ids = tokenizer->encode(bytes);
      EXPECT_EQ(ids, row["ids"].get<std::vector<TokenId>>()) << row["bytes_hex"];
      EXPECT_EQ(tokenizer->decode(ids), bytes);
    }
  }
}

TEST(TokenizerGolden, KnowsEverySpecialToken) {
  const auto tokenizer = test::meta_tokenizer();
  if (!tokenizer) GTEST_SKIP() << test::kNoRankFile;
  for (const auto& set : golden_sets()) {
    const Json golden = read_json_file(set / "tokenizer/specials.json");
    EXPECT_EQ(tokenizer->vocab_size(), 200000 + static_cast<int64_t>(golden.size()));
    for (const auto& [name, id] : golden.items()) {
      EXPECT_EQ(tokenizer->special(name), id.get<TokenId>()) << name;
      EXPECT_TRUE(tokenizer->is_special(id.get<TokenId>())) << name;
      EXPECT_EQ(tokenizer->token_bytes(id.get<TokenId>()), name);
    }
    EXPECT_FALSE(tokenizer->is_special(199999));
  }
}

/// The tokenizer.json files that stand beside the sets' checkpoints; the repository's own set has none.
TEST(TokenizerGolden, TokenizerJsonOfMiniCheckpoints) {
  bool found = false;
  for (const auto& set : golden_sets()) {
    if (!std::filesystem::exists(set / "tokenizer/mini_encode.json")) continue;
    found = true;
    const Json golden = read_json_file(set / "tokenizer/mini_encode.json");
    for (const auto& [vocab, entry] : golden.items()) {
      const auto tokenizer = Tokenizer::from_directory(set / "ckpt" / entry["checkpoint"].get<std::string>());
      EXPECT_EQ(std::to_string(tokenizer->vocab_size()), vocab);
      for (const Json& row : entry["rows"]) {
        const std::string text = row["text"];
        EXPECT_EQ(tokenizer->encode(text, Specials::kParse), row["ids"].get<std::vector<TokenId>>()) << text;
        EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
      }
    }
  }
  if (!found) GTEST_SKIP() << "no golden set with tokenizer files; PUNA_GOLDEN_DIR can name one";
}

}  // namespace
}  // namespace puna::text
