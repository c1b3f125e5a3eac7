// Small vocabularies, and texts drawn from a grammar at random.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/grammar.h"

namespace puna::grammar::test {

inline constexpr TokenId kEndToken = 0;

/// Token 0 ends a text; then all 256 bytes, then `words`.
std::shared_ptr<const Vocabulary> vocabulary(const std::vector<std::string>& words = {});

/// All single bytes, and `count` tokens of up to 12 bytes from pieces of English, JSON, code and other scripts.
std::shared_ptr<const Vocabulary> synthetic_vocabulary(size_t count, uint64_t seed);

std::shared_ptr<const CompiledGrammar> gbnf(std::string_view text, std::shared_ptr<const Vocabulary> words);
std::shared_ptr<const CompiledGrammar> schema(std::string_view json, std::shared_ptr<const Vocabulary> words);

/// Whether the whole text is one of the grammar's.
bool matches(const CompiledGrammar& grammar, std::string_view text);

bool allowed(const std::vector<uint64_t>& mask, TokenId token);
std::vector<uint64_t> mask_of(const CompiledGrammar& grammar, const GrammarState& state);

/// Tokens drawn from the masks until an end token, which is preferred once `soft_limit` tokens are out. Fails the test
/// when a mask is empty or a token of it is refused.
std::string random_text(const CompiledGrammar& grammar, std::mt19937_64& random, size_t soft_limit);

}  // namespace puna::grammar::test
