// Byte-pair merging of one piece into tokens.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace puna::text {

/// Two adjacent tokens that join into one; of several, that of the least priority joins first.
struct Merge {
  TokenId left, right, merged;
  uint32_t priority;
};

/// The merges that ranks imply: any two tokens that together spell a token join, its id being the priority.
std::vector<Merge> merges_from_ranks(const Vocabulary& vocabulary);

/// The merges of a vocabulary as a hash table of token pairs.
class MergeTable {
 public:
  struct Result {
    uint32_t priority = UINT32_MAX;  // UINT32_MAX: the two do not join
    TokenId merged = kNoToken;
  };

  /// Throws Error when a pair is listed twice.
  MergeTable(const std::vector<Merge>& merges, std::string_view where);

  Result find(TokenId left, TokenId right) const;

  /// All of them, the first to join first.
  std::vector<Merge> list() const;

 private:
  struct Slot {
    uint64_t pair = UINT64_MAX;
    Result result;
  };

  static uint64_t pair_of(TokenId left, TokenId right) {
    return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  }
  void insert(const Merge& merge, std::string_view where);
  size_t slot_of(uint64_t pair) const { return (pair * 0x9E3779B97F4A7C15u) >> shift_; }

  std::vector<Slot> slots_;  // open addressing, a power of two
  int shift_ = 63;
};

/// Appends the tokens of a non-empty piece: its bytes, the adjacent pair of least priority joined (the first of equals)
/// until none joins. O(n log n) for n bytes.
void merge_piece(std::string_view piece, const Vocabulary& vocabulary, const MergeTable& merges,
                 std::vector<TokenId>& out);

}  // namespace puna::text
