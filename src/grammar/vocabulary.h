// The bytes of all tokens as a tree, for walks that try every token at once.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace puna::text {
class Tokenizer;
using TokenId = int32_t;
}  // namespace puna::text

namespace puna::grammar {

using text::TokenId;

/// One per tokenizer, shared by all grammars; immutable.
class Vocabulary {
 public:
  /// A node is a beginning that tokens share. Nodes are in depth-first order: the subtree of node n is [n, end).
  struct Node {
    uint32_t end;
    uint32_t first_token;  // into tokens(); those of node n end where those of n + 1 begin
    uint16_t depth;        // bytes; the root has 0
    uint8_t byte;
  };

  /// `tokens[id]` are the bytes of token id; tokens without bytes (special ones) never match a grammar. `end_tokens`
  /// end a text: they are allowed where the grammar is complete. `size`, at least tokens.size(), is the number of
  /// logits.
  Vocabulary(std::vector<std::string> tokens, std::vector<TokenId> end_tokens, size_t size = 0);
  static std::shared_ptr<const Vocabulary> of(const text::Tokenizer& tokenizer, std::vector<TokenId> end_tokens,
                                              size_t size);

  size_t size() const { return size_; }
  /// 64-bit words of a mask; token id is bit id % 64 of word id / 64.
  size_t mask_words() const { return (size_ + 63) / 64; }
  std::string_view bytes(TokenId id) const;
  const std::vector<TokenId>& end_tokens() const { return end_tokens_; }
  bool is_end(TokenId id) const;

  std::span<const Node> nodes() const { return nodes_; }  // with one more at the end
  size_t num_nodes() const { return nodes_.size() - 1; }
  std::span<const TokenId> tokens() const { return sorted_; }
  size_t max_depth() const { return max_depth_; }

 private:
  void build();

  std::vector<std::string> tokens_;
  std::vector<TokenId> end_tokens_;
  size_t size_;
  std::vector<Node> nodes_;
  std::vector<TokenId> sorted_;
  size_t max_depth_ = 0;
};

}  // namespace puna::grammar
