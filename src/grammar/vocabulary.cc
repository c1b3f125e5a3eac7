#include "grammar/vocabulary.h"

#include <algorithm>

#include "base/error.h"
#include "text/tokenizer.h"

namespace puna::grammar {

Vocabulary::Vocabulary(std::vector<std::string> tokens, std::vector<TokenId> end_tokens, size_t size)
    : tokens_(std::move(tokens)), end_tokens_(std::move(end_tokens)), size_(std::max(size, tokens_.size())) {
  for (const TokenId id : end_tokens_)
    if (id < 0 || static_cast<size_t>(id) >= size_)
      fail("grammar", "the end token {} is not in the vocabulary of {} tokens", id, size_);
  std::sort(end_tokens_.begin(), end_tokens_.end());
  build();
}

std::shared_ptr<const Vocabulary> Vocabulary::of(const text::Tokenizer& tokenizer, std::vector<TokenId> end_tokens,
                                                 size_t size) {
  std::vector<std::string> tokens(static_cast<size_t>(tokenizer.vocab_size()));
  for (size_t i = 0; i < tokens.size(); ++i)
    if (const auto id = static_cast<TokenId>(i); !tokenizer.is_special(id)) tokens[i] = tokenizer.token_bytes(id);
  return std::make_shared<const Vocabulary>(std::move(tokens), std::move(end_tokens), size);
}

std::string_view Vocabulary::bytes(TokenId id) const {
  const auto index = static_cast<size_t>(id);
  return index < tokens_.size() ? std::string_view(tokens_[index]) : std::string_view();
}

bool Vocabulary::is_end(TokenId id) const { return std::binary_search(end_tokens_.begin(), end_tokens_.end(), id); }

void Vocabulary::build() {
  constexpr size_t kMaxTokenBytes = 4096;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i].size() > kMaxTokenBytes)
      fail("grammar", "token {} has {} bytes, more than {}", i, tokens_[i].size(), kMaxTokenBytes);
    if (!tokens_[i].empty() && !is_end(static_cast<TokenId>(i))) sorted_.push_back(static_cast<TokenId>(i));
  }
  std::sort(sorted_.begin(), sorted_.end(), [&](TokenId a, TokenId b) {
    const int order = bytes(a).compare(bytes(b));
    return order != 0 ? order < 0 : a < b;
  });
  std::vector<uint32_t> open = {0};  // nodes from the root to the last token's
  nodes_.push_back({0, 0, 0, 0});
  const auto close = [&](size_t depth) {
    for (; open.size() > depth; open.pop_back()) nodes_[open.back()].end = static_cast<uint32_t>(nodes_.size());
  };
  std::string_view before;
  for (uint32_t t = 0; t < sorted_.size(); ++t) {
    const std::string_view token = bytes(sorted_[t]);
    const size_t limit = std::min(before.size(), token.size());
    size_t shared = 0;
    while (shared < limit && before[shared] == token[shared]) ++shared;
    close(shared + 1);
    for (size_t i = shared; i < token.size(); ++i) {
      open.push_back(static_cast<uint32_t>(nodes_.size()));
      nodes_.push_back({0, t, static_cast<uint16_t>(i + 1), static_cast<uint8_t>(token[i])});
    }
    max_depth_ = std::max(max_depth_, token.size());
    before = token;
  }
  close(0);
  nodes_.push_back({0, static_cast<uint32_t>(sorted_.size()), 0, 0});
  nodes_.back().end = static_cast<uint32_t>(nodes_.size());
}

}  // namespace puna::grammar
