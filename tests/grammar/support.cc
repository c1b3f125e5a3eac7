#include "tests/grammar/support.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "grammar/gbnf.h"
#include "grammar/json_schema.h"
#include "text/utf8.h"

namespace puna::grammar::test {

std::shared_ptr<const Vocabulary> vocabulary(const std::vector<std::string>& words) {
  std::vector<std::string> tokens = {""};
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(std::string(1, static_cast<char>(byte)));
  tokens.insert(tokens.end(), words.begin(), words.end());
  return std::make_shared<const Vocabulary>(std::move(tokens), std::vector<TokenId>{kEndToken});
}

std::shared_ptr<const Vocabulary> synthetic_vocabulary(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  static const std::vector<std::string> kPieces = {"\"", "\":", "\", \"", "{",  "}",   "[",    "]",    ",", ":",
                                                   " ",  "  ",  "\n",     "\\", "\\n", "true", "null", "-", ".",
                                                   "0",  "1",   "25",     "e",  "@",   "/",    "_",    "T", "Z"};
  std::vector<std::string> words;
  while (words.size() < count) {
    std::string word = random() % 3 == 0 ? " " : "";
    const size_t length = 1 + random() % 8;
    const uint64_t kind = random() % 10;
    while (word.size() < length) {
      if (kind < 5)
        word += static_cast<char>('a' + random() % 26);
      else if (kind == 5)
        word += static_cast<char>('0' + random() % 10);
      else if (kind == 6)
        word += kPieces[random() % kPieces.size()];
      else if (kind == 7)
        text::append_utf8(word, 0x400 + random() % 0x60);
      else
        text::append_utf8(word, 0x4E00 + random() % 0x2000);
    }
    words.push_back(std::move(word));
  }
  return vocabulary(words);
}

std::shared_ptr<const CompiledGrammar> gbnf(std::string_view text, std::shared_ptr<const Vocabulary> words) {
  return CompiledGrammar::compile(read_gbnf(text, "test"), std::move(words), std::chrono::microseconds(0));
}

std::shared_ptr<const CompiledGrammar> schema(std::string_view json, std::shared_ptr<const Vocabulary> words) {
  return CompiledGrammar::compile(read_json_schema(parse_ordered_json(json, "test"), "test"), std::move(words),
                                  std::chrono::microseconds(0));
}

bool matches(const CompiledGrammar& grammar, std::string_view text) {
  GrammarState state = grammar.start();
  return state.accept_bytes(text) && state.is_complete();
}

bool allowed(const std::vector<uint64_t>& mask, TokenId token) {
  return mask[static_cast<size_t>(token) / 64] >> (token % 64) & 1;
}

std::vector<uint64_t> mask_of(const CompiledGrammar& grammar, const GrammarState& state) {
  std::vector<uint64_t> mask(grammar.vocabulary().mask_words(), ~uint64_t{0});
  state.mask(mask);
  return mask;
}

std::string random_text(const CompiledGrammar& grammar, std::mt19937_64& random, size_t soft_limit) {
  GrammarState state = grammar.start();
  const Vocabulary& vocabulary = grammar.vocabulary();
  std::vector<uint64_t> mask(vocabulary.mask_words());
  std::string text;
  for (size_t count = 0; count < 20'000; ++count) {
    state.mask(mask);
    if (allowed(mask, kEndToken) && (count >= soft_limit || random() % 4 == 0)) return text;
    std::vector<TokenId> choices;
    for (size_t id = 1; id < vocabulary.size(); ++id)
      if (allowed(mask, static_cast<TokenId>(id))) choices.push_back(static_cast<TokenId>(id));
    if (choices.empty()) {
      EXPECT_TRUE(allowed(mask, kEndToken)) << "nothing is allowed after: " << text;
      return text;
    }
    TokenId token = choices[random() % choices.size()];
    if (count >= soft_limit) {  // what closes comes first, so that nesting ends; within a string that is the quote
      const auto byte = [](char c) { return TokenId{1} + static_cast<uint8_t>(c); };
      const bool in_string = allowed(mask, byte('!')) || allowed(mask, byte('a'));
      for (const char c : {'"', '}', ']'})
        if (allowed(mask, byte(c)) && (c == '"') == in_string) token = byte(c);
    }
    EXPECT_TRUE(state.accept(token)) << text << " then " << vocabulary.bytes(token);
    text += vocabulary.bytes(token);
  }
  ADD_FAILURE() << "no end after 20,000 tokens: " << text.substr(0, 200);
  return text;
}

}  // namespace puna::grammar::test
