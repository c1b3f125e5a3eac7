// Hostile and broken tokenizer files: one clear error each.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "tests/support/golden.h"
#include "tests/text/tiny_tokenizer.h"
#include "text/tokenizer.h"

namespace puna::text {
namespace {

using testing::HasSubstr;

template <typename Function>
std::string error_of(const Function& function) {
  try {
    function();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

class RankFile : public testing::Test {
 protected:
  static std::string base64(std::string_view bytes) {
    constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    for (size_t i = 0; i < bytes.size(); i += 3) {
      uint32_t word = 0;
      for (size_t j = 0; j < 3; ++j) word = word << 8 | (i + j < bytes.size() ? static_cast<uint8_t>(bytes[i + j]) : 0);
      for (size_t j = 0; j < 4; ++j) out += i + j > bytes.size() ? '=' : kDigits[word >> (18 - 6 * j) & 63];
    }
    return out;
  }
  /// The lines of a rank file of single bytes, then those tokens.
  static std::vector<std::string> lines_of(const std::vector<std::string>& tokens) {
    std::vector<std::string> lines;
    for (int b = 0; b < 256; ++b) lines.push_back(base64(std::string(1, static_cast<char>(b))));
    for (const auto& token : tokens) lines.push_back(base64(token));
    for (size_t i = 0; i < lines.size(); ++i) lines[i].append(" ").append(std::to_string(i));
    return lines;
  }
  std::shared_ptr<const Tokenizer> open(const std::vector<std::string>& lines) {
    const auto path = folder_.path() / "tokenizer.model";
    {
      std::ofstream out(path, std::ios::binary);
      for (const auto& line : lines) out << line << "\n";
    }
    return Tokenizer::from_rank_file(path);
  }
  std::string error_for(const std::vector<std::string>& lines) {
    return error_of([&] { open(lines); });
  }

  test::TemporaryDirectory folder_;
};

TEST_F(RankFile, JoinsLowestRanksFirst) {
  const auto tokenizer = open(lines_of({"bc", "ab", "abc"}));
  EXPECT_EQ(tokenizer->vocab_size(), 259 + 2048);
  EXPECT_EQ(tokenizer->encode("abc"), std::vector<TokenId>({258}));  // a whole piece is taken whole
  EXPECT_EQ(tokenizer->encode("abcd"), std::vector<TokenId>({258, 'd'}));
  EXPECT_EQ(tokenizer->encode("aabc"), std::vector<TokenId>({'a', 258}));
  EXPECT_EQ(tokenizer->special("<|begin_of_text|>"), 259);
}

TEST_F(RankFile, OpensWithWindowsLineEndsAndBlankLines) {
  auto lines = lines_of({"ab"});
  for (auto& line : lines) line += "\r";
  lines.insert(lines.begin() + 7, "");
  EXPECT_EQ(open(lines)->encode("ab"), std::vector<TokenId>({256}));
}

TEST_F(RankFile, BrokenLinesAreNamed) {
  auto lines = lines_of({});
  lines[4] = "!!!! 4";
  EXPECT_THAT(error_for(lines), HasSubstr("line 5: '!!!!' is not base64"));
  lines[4] = "BA= 4";
  EXPECT_THAT(error_for(lines), HasSubstr("is not base64"));
  lines[4] = "BB== 4";  // unused bits set
  EXPECT_THAT(error_for(lines), HasSubstr("is not base64"));
  lines[4] = "BA==";
  EXPECT_THAT(error_for(lines), HasSubstr("line 5 is not 'base64 rank'"));
  lines[4] = "BA== four";
  EXPECT_THAT(error_for(lines), HasSubstr("line 5: 'four' is not a rank"));
  lines[4] = "BA== -4";
  EXPECT_THAT(error_for(lines), HasSubstr("'-4' is not a rank"));
  lines[4] = "BA== 99999999999999999999";
  EXPECT_THAT(error_for(lines), HasSubstr("is not a rank"));
  lines[4] = "BA== 4000000000";
  EXPECT_THAT(error_for(lines), HasSubstr("over the limit"));
  lines[4] = std::string(1 << 20, 'A').append(" 4");
  EXPECT_THAT(error_for(lines), HasSubstr("more than 254 bytes"));
}

TEST_F(RankFile, DuplicatesGapsAndMissingBytes) {
  auto lines = lines_of({"ab"});
  lines.push_back("YWM= 256");
  EXPECT_THAT(error_for(lines), HasSubstr("rank 256 is given twice"));
  lines.back() = "YWI= 257";
  EXPECT_THAT(error_for(lines), HasSubstr("tokens 256 and 257 have the same 2 bytes"));
  lines.back() = "YWM= 258";
  EXPECT_THAT(error_for(lines), HasSubstr("rank 257 is missing among 259 ranks"));
  lines = lines_of({});
  lines[65] = "YWI= 65";
  EXPECT_THAT(error_for(lines), HasSubstr("no token for the single byte 0x41"));
  EXPECT_THAT(error_for({}), HasSubstr("no token for the single byte 0x00"));
}

TEST_F(RankFile, MissingFilesAndDirectories) {
  const auto dir = folder_.path();
  EXPECT_THAT(error_of([&] { Tokenizer::from_rank_file(dir / "absent"); }), HasSubstr("absent"));
  EXPECT_THAT(error_of([&] { Tokenizer::from_directory(dir); }), HasSubstr("no tokenizer here"));
  std::ofstream(dir / "tokenizer.json") << "{\"model\": ";
  EXPECT_THAT(error_of([&] { Tokenizer::open(dir); }), HasSubstr("not valid JSON"));
}

std::string json_error(const Json& json) {
  return error_of([&] { Tokenizer::from_hf_json(json, "t.json"); });
}

TEST(TokenizerJson, OpensTheTinyOne) {
  const auto tokenizer = Tokenizer::from_hf_json(test::tiny_tokenizer_json(), "t.json");
  EXPECT_EQ(tokenizer->vocab_size(), 256 + 20 + 10);
  const auto ids = tokenizer->encode("user and the");
  EXPECT_EQ(ids.size(), 3u);
  EXPECT_EQ(tokenizer->decode(ids), "user and the");
}

TEST(TokenizerJson, WrongKindsOfTokenizerAreRefused) {
  const Json good = test::tiny_tokenizer_json();
  const auto with = [&](const char* pointer, const Json& value) {
    Json json = good;
    json[Json::json_pointer(pointer)] = value;
    return json_error(json);
  };
  EXPECT_EQ(json_error(good), "no error");
  EXPECT_THAT(json_error(Json::array()), HasSubstr("no object 'model'"));
  EXPECT_THAT(json_error(nullptr), HasSubstr("no object 'model'"));
  EXPECT_THAT(with("/model", 3), HasSubstr("no object 'model'"));
  EXPECT_THAT(with("/model/type", "Unigram"), HasSubstr("'model.type' is \"Unigram\", expected \"BPE\""));
  EXPECT_THAT(with("/model/byte_fallback", true), HasSubstr("'byte_fallback' is true"));
  EXPECT_THAT(with("/model/end_of_word_suffix", "</w>"), HasSubstr("'end_of_word_suffix'"));
  EXPECT_THAT(with("/normalizer", Json{{"type", "NFC"}}), HasSubstr("'normalizer'"));
  EXPECT_THAT(with("/pre_tokenizer", nullptr), HasSubstr("not a Llama 4 tokenizer"));
  EXPECT_THAT(with("/pre_tokenizer/pretokenizers/0/pattern/Regex", "\\s+"), HasSubstr("split pattern"));
  EXPECT_THAT(with("/pre_tokenizer/pretokenizers/1/add_prefix_space", true), HasSubstr("prefix space"));
}

TEST(TokenizerJson, BrokenTokensAreNamed) {
  const Json good = test::tiny_tokenizer_json();
  const auto with = [&](const char* pointer, const Json& value) {
    Json json = good;
    json[Json::json_pointer(pointer)] = value;
    return json_error(json);
  };
  EXPECT_THAT(with("/model/vocab", Json::array()), HasSubstr("'model.vocab' is not an object"));
  EXPECT_THAT(with("/model/vocab/new", 3), HasSubstr("the id 3 is given to two tokens"));
  EXPECT_THAT(with("/model/vocab/new", -1), HasSubstr("has the id -1"));
  EXPECT_THAT(with("/model/vocab/new", 1.5), HasSubstr("has the id 1.5"));
  EXPECT_THAT(with("/model/vocab/new", "x"), HasSubstr("has the id \"x\""));
  EXPECT_THAT(with("/model/vocab/new", uint64_t{1} << 63), HasSubstr("has the id 9223372036854775808"));
  EXPECT_THAT(with("/model/vocab/new", 4'000'000), HasSubstr("token 286 is empty"));
  EXPECT_THAT(with("/model/vocab/a b", 286), HasSubstr("outside the byte-level alphabet"));
  EXPECT_THAT(with("/model/vocab/", 286), HasSubstr("token 286 is empty"));
  EXPECT_THAT(with("/added_tokens", 5), HasSubstr("'added_tokens' is not an array"));
  EXPECT_THAT(with("/added_tokens/0/content", 5), HasSubstr("no 'content'"));
  EXPECT_THAT(with("/added_tokens/0/id", 280), HasSubstr("given to two added tokens"));
  EXPECT_THAT(with("/added_tokens/0/content", "<|eot|>"), HasSubstr("are both '<|eot|>'"));
  Json no_byte = good;
  no_byte["model"]["vocab"].erase("A");
  no_byte["model"]["vocab"]["AZ"] = 65;
  EXPECT_THAT(json_error(no_byte), HasSubstr("no token for the single byte 0x41"));
}

TEST(TokenizerJson, BrokenMergesAreNamed) {
  const Json good = test::tiny_tokenizer_json();
  const auto with = [&](const Json& merge) {
    Json json = good;
    json["model"]["merges"][2] = merge;
    return json_error(json);
  };
  EXPECT_THAT(with(7), HasSubstr("merge 2 is not two tokens"));
  EXPECT_THAT(with({"a", "b", "c"}), HasSubstr("merge 2 is not two tokens"));
  EXPECT_THAT(with("ab"), HasSubstr("merge 2: 'ab' is not two tokens"));
  EXPECT_THAT(with("a b c"), HasSubstr("merge 2: 'b c' is not in the vocabulary"));
  EXPECT_THAT(with({"zz", "b"}), HasSubstr("merge 2: 'zz' is not in the vocabulary"));
  EXPECT_THAT(with({"", "b"}), HasSubstr("is not in the vocabulary"));
  EXPECT_THAT(with({"z", "z"}), HasSubstr("the vocabulary has no token 'zz'"));
  EXPECT_THAT(with({"<|eot|>", "b"}), HasSubstr("is not in the vocabulary"));
  EXPECT_THAT(with(good["model"]["merges"][0]), HasSubstr("listed twice"));
  Json none = good;
  none["model"]["merges"] = 5;
  EXPECT_THAT(json_error(none), HasSubstr("the merges are not an array"));
}

TEST(TokenizerJson, MergesMayBeStrings) {
  Json json = test::tiny_tokenizer_json();
  for (Json& merge : json["model"]["merges"]) merge = merge[0].get<std::string>() + ' ' + merge[1].get<std::string>();
  const auto strings = Tokenizer::from_hf_json(json, "t.json");
  const auto pairs = Tokenizer::from_hf_json(test::tiny_tokenizer_json(), "t.json");
  const std::string text = "the user and the others, aaaaaaa    \xE6\xBC\xA2 -- thing";
  EXPECT_EQ(strings->encode(text), pairs->encode(text));
}

TEST(TokenizerJson, WithoutIgnoreMergesAPieceIsBuiltFromMerges) {
  Json json = test::tiny_tokenizer_json();
  json["model"]["merges"] = Json::array();
  EXPECT_EQ(Tokenizer::from_hf_json(json, "t.json")->encode("the").size(), 1u);
  json["model"]["ignore_merges"] = false;
  EXPECT_EQ(Tokenizer::from_hf_json(json, "t.json")->encode("the").size(), 3u);
}

TEST(TokenizerGguf, EqualsTokenizerJson) {
  const auto gguf = Tokenizer::from_gguf(test::tiny_gguf_metadata(), "t.gguf");
  const auto json = Tokenizer::from_hf_json(test::tiny_tokenizer_json(), "t.json");
  ASSERT_EQ(gguf->vocab_size(), json->vocab_size());
  for (TokenId id = 0; id < json->vocab_size(); ++id) {
    EXPECT_EQ(gguf->token_bytes(id), json->token_bytes(id));
    EXPECT_EQ(gguf->is_special(id), json->is_special(id));
  }
  const std::string text = "<|eot|>the user and the others, aaaaaaa    \xE6\xBC\xA2 -- thing";
  EXPECT_EQ(gguf->encode(text), json->encode(text));
  EXPECT_EQ(gguf->encode(text, Specials::kParse), json->encode(text, Specials::kParse));
}

TEST(TokenizerGguf, BrokenMetadataIsNamed) {
  const Json good = test::tiny_gguf_metadata();
  const auto with = [&](const char* key, const Json& value) {
    Json json = good;
    json[key] = value;
    return error_of([&] { Tokenizer::from_gguf(json, "t.gguf"); });
  };
  EXPECT_THAT(with("tokenizer.ggml.model", "llama"), HasSubstr("is 'llama', expected 'gpt2'"));
  EXPECT_THAT(with("tokenizer.ggml.pre", "qwen2"), HasSubstr("is 'qwen2', expected 'llama4'"));
  EXPECT_THAT(with("tokenizer.ggml.pre", 5), HasSubstr("is '', expected 'llama4'"));
  EXPECT_THAT(with("tokenizer.ggml.tokens", 5), HasSubstr("'tokenizer.ggml.tokens' is not there or no array"));
  EXPECT_THAT(with("tokenizer.ggml.token_type", Json::array()), HasSubstr("286 tokens but 0 token types"));
  EXPECT_THAT(with("tokenizer.ggml.merges", nullptr), HasSubstr("'tokenizer.ggml.merges'"));
  Json json = good;
  json["tokenizer.ggml.tokens"][3] = 3;
  EXPECT_THAT(error_of([&] { Tokenizer::from_gguf(json, "t.gguf"); }), HasSubstr("token 3 or its type is malformed"));
}

TEST(TokenizerIds, OutsideTheVocabularyAreErrors) {
  const auto tokenizer = Tokenizer::from_hf_json(test::tiny_tokenizer_json(), "t.json");
  for (TokenId id : {-1, 286, INT32_MAX, INT32_MIN}) {
    EXPECT_THAT(error_of([&] { tokenizer->decode(std::vector<TokenId>{id}); }),
                HasSubstr("outside this vocabulary of 286"));
    EXPECT_FALSE(tokenizer->is_special(id));
  }
}

}  // namespace
}  // namespace puna::text
