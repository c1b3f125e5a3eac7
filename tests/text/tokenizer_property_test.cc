// What holds for every text: round trips, merges against a plain implementation, streams, limits, special tokens.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <map>
#include <random>

#include "base/memory.h"
#include "tests/support/golden.h"
#include "tests/text/meta_tokenizer.h"
#include "tests/text/tiny_tokenizer.h"
#include "text/split.h"
#include "text/tokenizer.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"

namespace puna::text {
namespace {

std::shared_ptr<const Tokenizer> tiny() {
  static const auto tokenizer = Tokenizer::from_hf_json(test::tiny_tokenizer_json(), "tiny");
  return tokenizer;
}

class RandomText {
 public:
  explicit RandomText(uint32_t seed) : random_(seed) {}
  size_t below(size_t n) { return static_cast<size_t>(random_() % n); }

  std::string bytes(size_t n) {
    std::string out;
    while (out.size() < n) out += static_cast<char>(below(256));
    return out;
  }
  /// Words that the tiny vocabulary merges, runs, other characters.
  std::string words(size_t num) {
    static const std::vector<std::string> kWords = {
        "the",   " and",    "user",      "inging", "aaaaaaa", "  ", "\n\n", "\xE6\xBC\xA2", "\xF0\x9F\xA6\x99",
        "-----", "<|eot|>", "<|image|>", "x",      " ",       "7",  "<|"};
    std::string out;
    for (; num > 0; --num) out += kWords[below(kWords.size())];
    return out;
  }

 private:
  std::mt19937 random_;
};

TEST(TokenizerProperty, EveryByteStringSurvives) {
  RandomText random(1);
  for (int i = 0; i < 3000; ++i) {
    const std::string text = i % 3 == 0 ? random.bytes(random.below(60))
                                        : random.words(random.below(40)) + (i % 3 == 1 ? random.bytes(3) : "");
    EXPECT_EQ(tiny()->decode(tiny()->encode(text)), text);
    EXPECT_EQ(tiny()->decode(tiny()->encode(text, Specials::kParse)), text);
  }
}

/// Byte-pair encoding by its definition: scan, join the first pair of least priority, repeat.
std::vector<TokenId> merge_plainly(std::string_view piece) {
  static const auto merges = [] {
    std::map<std::pair<std::string, std::string>, size_t> map;
    const Json json = test::tiny_tokenizer_json();
    for (const Json& merge : json["model"]["merges"]) map[{merge[0], merge[1]}] = map.size();
    return map;
  }();
  std::vector<std::string> parts;
  for (char c : piece) parts.push_back(test::to_byte_level(std::string(1, c)));
  while (true) {
    size_t best = parts.size(), best_priority = SIZE_MAX;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto entry = merges.find({parts[i], parts[i + 1]});
      if (entry != merges.end() && entry->second < best_priority) best = i, best_priority = entry->second;
    }
    if (best == parts.size()) break;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  const Json vocabulary = test::tiny_tokenizer_json()["model"]["vocab"];
  std::vector<TokenId> ids;
  for (const auto& part : parts) ids.push_back(vocabulary[part]);
  return ids;
}

// Short pieces are merged by search, long ones with a heap, repeated ones are remembered: all as defined.
TEST(TokenizerProperty, MergesAreThoseOfTheDefinition) {
  RandomText random(2);
  for (int i = 0; i < 60; ++i) {
    std::string piece;
    const size_t size = 1 + random.below(i % 2 ? 30 : 300);
    while (piece.size() < size) piece += "aainthesuru"[random.below(11)];
    if (next_piece(piece) != piece.size()) continue;
    const auto vocabulary = test::tiny_merged_tokens();
    if (std::find(vocabulary.begin(), vocabulary.end(), piece) != vocabulary.end()) continue;
    const auto expected = merge_plainly(piece);
    EXPECT_EQ(tiny()->encode(piece), expected) << piece;
    auto thrice = expected;
    for (int j = 0; j < 2; ++j) {
      thrice.push_back('.');
      thrice.insert(thrice.end(), expected.begin(), expected.end());
    }
    if (next_piece(fmt::format(".{}", piece)) == 1 + piece.size()) continue;
    EXPECT_EQ(tiny()->encode(fmt::format("{0}.{0}.{0}", piece)), thrice);
  }
}

// Repeated pieces are remembered; the memory must not show: the whole is its lines one by one.
TEST(TokenizerProperty, RememberedPiecesEncodeAlike) {
  RandomText random(3);
  std::string text;
  std::vector<TokenId> expected;
  for (int i = 0; i < 3000; ++i) {
    const std::string line = fmt::format(".{}x\n", random.words(1 + random.below(10)));
    const auto ids = tiny()->encode(line);
    text += line;
    expected.insert(expected.end(), ids.begin(), ids.end());
  }
  EXPECT_TRUE(tiny()->encode(text) == expected);
}

TEST(StreamDecoderProperty, NeverEmitsHalfACharacter) {
  RandomText random(4);
  for (int i = 0; i < 3000; ++i) {
    const std::string text = i % 2 ? random.bytes(random.below(30)) : random.words(random.below(20));
    StreamDecoder stream(tiny());
    std::string whole;
    for (const char c : text) {  // single bytes are tokens of their own id
      const std::string piece = stream.push(static_cast<uint8_t>(c));
      EXPECT_EQ(valid_utf8_prefix(piece), piece.size());
      whole += piece;
    }
    EXPECT_EQ(whole + stream.finish(), replace_invalid_utf8(text)) << test::to_hex(text);
    StreamDecoder by_tokens(tiny());
    std::string other;
    for (TokenId id : tiny()->encode(text)) other += by_tokens.push(id);
    EXPECT_EQ(other + by_tokens.finish(), replace_invalid_utf8(text));
    EXPECT_EQ(by_tokens.finish(), "");
  }
}

// What Python's bytes.decode("utf-8", "replace") gives.
TEST(Utf8, InvalidPartsAreReplacedAsPythonDoes) {
  const std::string r = "\xEF\xBF\xBD";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", ""},
      {"a\x80z", "a" + r + "z"},
      {"\xC3", r},
      {"\xC3\x28", r + "("},
      {"\xE2\x82", r},
      {"\xE2\x28\xA1", r + "(" + r},
      {"\xE2\x82\x28", r + "("},
      {"\xF0\x9F\xA6", r},
      {"\xF0\x9F\xA6x", r + "x"},
      {"\xF0\x28\x8C\xBC", r + "(" + r + r},
      {"\xC0\xAF", r + r},
      {"\xE0\x80\xAF", r + r + r},
      {"\xED\xA0\x80", r + r + r},
      {"\xF4\x90\x80\x80", r + r + r + r},
      {"\xF5\x80", r + r},
      {"\xFF\xFE", r + r},
      {"\xF0\x90\x80\xE2\x82\xAC", r + "\xE2\x82\xAC"},
      {"\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF", "\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF"},
  };
  for (const auto& [bytes, text] : cases) EXPECT_EQ(replace_invalid_utf8(bytes), text) << test::to_hex(bytes);
}

TEST(Specials, TheLongestNameWinsAndOnlyWhenAsked) {
  const TokenId image = *tiny()->special("<|image|>"), image_x = *tiny()->special("<|image|>x");
  EXPECT_EQ(tiny()->encode("<|image|>x", Specials::kParse), std::vector<TokenId>({image_x}));
  EXPECT_EQ(tiny()->encode("<|image|>y", Specials::kParse), std::vector<TokenId>({image, 'y'}));
  EXPECT_EQ(tiny()->encode("<<|image|>", Specials::kParse), std::vector<TokenId>({'<', image}));
  EXPECT_EQ(tiny()->special("<|nope|>"), std::nullopt);
}

TEST(Specials, TextNeverBecomesOne) {
  RandomText random(5);
  for (int i = 0; i < 3000; ++i) {
    std::string text = random.words(1 + random.below(12));
    if (i % 4 == 0) text.insert(random.below(text.size()), random.bytes(1));
    for (TokenId id : tiny()->encode(text)) ASSERT_FALSE(tiny()->is_special(id)) << text;
  }
}

// 10 MB of one character and of noise (2 MB of the less likely): bounded memory, and time that grows with the length
// alone.
TEST(TokenizerLimits, TenMegabytesOfAnything) {
  const auto tokenizer = test::meta_tokenizer() ? test::meta_tokenizer() : tiny();
  RandomText random(6);
  std::vector<std::string> texts = {random.bytes(10'000'000)};
  for (const char* unit :
       {"a", " ", "\n", "A", "!", "7", "\xCC\x81", "\xE6\xBC\xA2", " \n", "\xFF", "\xF0", "<|eot|>"}) {
    const size_t size = texts.size() < 4 ? 10'000'000 : 2'000'000;
    texts.emplace_back();
    while (texts.back().size() < size) texts.back() += unit;
  }
  for (const std::string& text : texts) {
    const int64_t before = resident_memory_bytes();
    const auto start = std::chrono::steady_clock::now();
    const auto ids = tokenizer->encode(text, Specials::kParse);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    EXPECT_LT(seconds, 60) << test::to_hex(text.substr(0, 4));
    EXPECT_LT(resident_memory_bytes() - before, 400 << 20) << test::to_hex(text.substr(0, 4));
    EXPECT_EQ(tokenizer->decode(ids), text);
  }
}

/// Meta's cuts by their definition, in characters.
std::vector<std::string> cut_plainly(std::string_view text) {
  std::vector<std::string> stretches;
  int64_t window = 0, run = 0;
  bool run_is_space = false;
  for (; !text.empty();) {
    const auto n = static_cast<size_t>(read_utf8(text).length);
    const bool is_space =
        std::string_view(" \t\n\r\x1C").find(text[0]) != std::string_view::npos || text.starts_with("\u3000");
    if (window == 0 || window == 400'000) {
      stretches.emplace_back();
      window = run = 0;
    }
    run = run > 0 && is_space == run_is_space ? run + 1 : 1;
    if (run > 25'000) {
      stretches.emplace_back();
      run = 1;
    }
    run_is_space = is_space;
    stretches.back() += text.substr(0, n);
    text.remove_prefix(n);
    ++window;
  }
  return stretches;
}

TEST(TokenizerLimits, CutsRunsAndWindowsWhereMetaDoes) {
  RandomText random(7);
  const std::vector<std::string> units = {"a", " ", "\u3000", "\xE6\xBC\xA2", "\x1C", "ab ", "7"};
  for (int i = 0; i < 12; ++i) {
    std::string text;
    while (text.size() < 1'500'000) {
      const std::string& unit = units[random.below(units.size())];
      const size_t counts[] = {24'999, 25'000, 25'001, 12'000, 80'000, 3};
      for (size_t n = counts[random.below(6)]; n > 0; --n) text += unit;
    }
    std::vector<TokenId> expected;
    for (const auto& stretch : cut_plainly(text)) {
      for (std::string_view rest = stretch; !rest.empty(); rest.remove_prefix(next_piece(rest))) {
        const auto ids = tiny()->encode(rest.substr(0, next_piece(rest)));
        expected.insert(expected.end(), ids.begin(), ids.end());
      }
    }
    EXPECT_TRUE(tiny()->encode(text) == expected) << "round " << i;
  }
}

// tokenizer.json lists the merges that the ranks imply; the ids must be the same, and reading it must not take long.
TEST(TokenizerFormats, TokenizerJsonOfTheFullVocabularyEqualsTheRankFile) {
  const auto ranks = test::meta_tokenizer();
  if (!ranks) GTEST_SKIP() << test::kNoRankFile;
  const BytePairModel model = read_rank_file(test::meta_rank_file(), {});
  Json json = test::tiny_tokenizer_json();
  json["added_tokens"] = Json::array();
  json["model"]["vocab"] = Json::object();
  for (TokenId id = 0; id < ranks->vocab_size(); ++id) {
    if (ranks->is_special(id))
      json["added_tokens"].push_back({{"id", id}, {"content", ranks->token_bytes(id)}});
    else
      json["model"]["vocab"][test::to_byte_level(ranks->token_bytes(id))] = id;
  }
  json["model"]["merges"] = Json::array();
  for (const Merge& merge : merges_from_ranks(model.vocabulary))
    json["model"]["merges"].push_back(
        {test::to_byte_level(ranks->token_bytes(merge.left)), test::to_byte_level(ranks->token_bytes(merge.right))});
  const test::TemporaryDirectory folder;
  std::ofstream(folder.path() / "tokenizer.json") << json;
  const auto start = std::chrono::steady_clock::now();
  const auto tokenizer = Tokenizer::from_directory(folder.path());
  RecordProperty(
      "load_ms",
      std::to_string(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count()));
  ASSERT_EQ(tokenizer->vocab_size(), ranks->vocab_size());
  for (const auto& set : test::golden_sets()) {
    const Json golden = read_json_file(set / "tokenizer/encode.json");
    for (const Json& row : golden["rows"]) {
      const std::string text = test::golden_text(row);
      EXPECT_EQ(tokenizer->encode(text), test::golden_ids(row, "ids"));
      EXPECT_EQ(tokenizer->encode(text, Specials::kParse), ranks->encode(text, Specials::kParse));
    }
  }
}

}  // namespace
}  // namespace puna::text
