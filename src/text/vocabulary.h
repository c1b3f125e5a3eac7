// Token bytes by id, and ids by token bytes.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/tokenizer.h"

namespace puna::text {

inline constexpr TokenId kNoToken = -1;
inline constexpr size_t kMaxTokens = 1 << 22;
inline constexpr size_t kMaxTokenBytes = 254;
/// Longest search in a half-full hash table before the file counts as hostile; real ones need a few dozen.
inline constexpr size_t kMaxProbes = 4096;

/// Tokens as a file gives them, by id. Special tokens have their name as bytes.
struct TokenList {
  std::vector<std::string> tokens;
  std::vector<uint8_t> is_special;
};

/// What a hash table compares first: in the top byte how many bytes, or 255 for more; below, up to 7 bytes whole, so
/// that it alone tells them apart, or a hash of them.
uint64_t key_of(std::string_view bytes);
inline bool is_exact(uint64_t key) { return key >> 56 <= 7; }
inline size_t slot_of(uint64_t key, int shift) { return (key * 0x9E3779B97F4A7C15u) >> shift; }

/// Finds tokens by their bytes; special tokens are kept apart, so that no text can spell them.
class Vocabulary {
 public:
  /// Throws Error on duplicate tokens, or when one of the 256 bytes has no token of its own.
  Vocabulary(const TokenList& list, std::string_view where);

  size_t size() const { return ends_.size(); }
  std::string_view bytes(TokenId id) const {
    const size_t i = static_cast<size_t>(id), begin = i == 0 ? 0 : ends_[i - 1];
    return {blob_.data() + begin, ends_[i] - begin};
  }
  bool is_special(TokenId id) const { return is_special_[static_cast<size_t>(id)]; }
  TokenId byte_token(uint8_t byte) const { return byte_tokens_[byte]; }

  /// kNoToken when no ordinary token has these bytes.
  TokenId find(std::string_view bytes) const { return find(bytes, key_of(bytes)); }
  TokenId find(std::string_view bytes, uint64_t key) const;
  /// Asks the CPU to fetch what find() of this key will read.
  void prefetch(uint64_t key) const { __builtin_prefetch(&slots_[slot_of(key, shift_)]); }
  TokenId find_special(std::string_view name) const;

  /// The special token at the front of `text`, the longest of several; kNoToken when none is.
  TokenId special_at(std::string_view text) const;

 private:
  struct Slot {
    uint64_t key = 0;
    TokenId id = kNoToken;
    uint32_t begin = 0;  // of its bytes in the blob
  };

  void insert(TokenId id, std::string_view where);

  std::string blob_;
  std::vector<size_t> ends_;
  std::vector<uint8_t> is_special_;
  bool matches(const Slot& slot, std::string_view token, uint64_t key) const {
    return slot.key == key &&
           (is_exact(key) || std::memcmp(blob_.data() + slot.begin, token.data(), token.size()) == 0);
  }

  std::vector<Slot> slots_;  // open addressing, a power of two
  int shift_ = 0;
  TokenId byte_tokens_[256];
  std::unordered_map<std::string, TokenId> specials_;
  std::vector<size_t> special_lengths_;  // distinct, longest first
  bool begins_special_[256] = {};
};

}  // namespace puna::text
