#include "text/vocabulary.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>

#include "base/error.h"

namespace puna::text {
namespace {

template <typename Word>
uint64_t load(const char* p) {
  Word word;
  std::memcpy(&word, p, sizeof(word));
  return word;
}

/// 1 to 7 bytes as a number, lowest first.
uint64_t load_short(const char* p, size_t n) {
  if (n >= 4) return load<uint32_t>(p) | load<uint32_t>(p + n - 4) << (8 * (n - 4));
  if (n >= 2) return load<uint16_t>(p) | load<uint16_t>(p + n - 2) << (8 * (n - 2));
  return load<uint8_t>(p);
}

uint64_t mix(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a ^ 0x9E3779B97F4A7C15u) * (b ^ 0xD6E8FEB86659FD93u);
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

}  // namespace

uint64_t key_of(std::string_view bytes) {
  const char* p = bytes.data();
  size_t n = bytes.size();
  if (n <= 7) return load_short(p, n) | static_cast<uint64_t>(n) << 56;
  const uint64_t size = std::min<size_t>(n, 255);
  uint64_t h = n;
  for (; n > 16; p += 16, n -= 16) h = mix(load<uint64_t>(p) ^ h, load<uint64_t>(p + 8));
  const uint64_t last = load<uint64_t>(p + n - 8);
  return mix(last ^ h, n >= 8 ? load<uint64_t>(p) : n) << 8 >> 8 | size << 56;
}

Vocabulary::Vocabulary(const TokenList& list, std::string_view where) : is_special_(list.is_special) {
  const size_t n = list.tokens.size();
  if (n > kMaxTokens) fail(where, "{} tokens are more than the limit of {}", n, kMaxTokens);
  size_t total = 0;
  for (const auto& token : list.tokens) total += token.size();
  blob_.reserve(total);
  ends_.reserve(n);
  for (const auto& token : list.tokens) {
    blob_ += token;
    ends_.push_back(blob_.size());
  }
  slots_.resize(std::bit_ceil(n * 2 + 2));
  shift_ = 64 - std::countr_zero(slots_.size());
  for (size_t i = 0; i < n; ++i) insert(static_cast<TokenId>(i), where);
  for (const auto& [name, id] : specials_) special_lengths_.push_back(name.size());
  std::sort(special_lengths_.begin(), special_lengths_.end(), std::greater<>());
  special_lengths_.erase(std::unique(special_lengths_.begin(), special_lengths_.end()), special_lengths_.end());
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    byte_tokens_[b] = find({&byte, 1});
    if (byte_tokens_[b] == kNoToken)
      fail(where, "no token for the single byte 0x{:02x}; a byte-level vocabulary has all 256", b);
  }
}

void Vocabulary::insert(TokenId id, std::string_view where) {
  const std::string_view token = bytes(id);
  if (token.empty()) fail(where, "token {} is empty", id);
  if (token.size() > kMaxTokenBytes)
    fail(where, "token {} has {} bytes, more than the limit of {}", id, token.size(), kMaxTokenBytes);
  if (is_special(id)) {
    const auto [entry, is_new] = specials_.emplace(token, id);
    if (!is_new) fail(where, "special tokens {} and {} are both '{}'", entry->second, id, token);
    begins_special_[static_cast<uint8_t>(token[0])] = true;
    return;
  }
  const uint64_t key = key_of(token);
  size_t i = slot_of(key, shift_);
  for (size_t probes = 0; slots_[i].id != kNoToken; i = (i + 1) & (slots_.size() - 1)) {
    if (++probes > kMaxProbes) fail(where, "the tokens are made to collide; this is not an honest vocabulary");
    if (matches(slots_[i], token, key))
      fail(where, "tokens {} and {} have the same {} bytes", slots_[i].id, id, token.size());
  }
  slots_[i] = {key, id, static_cast<uint32_t>(token.data() - blob_.data())};
}

TokenId Vocabulary::find(std::string_view token, uint64_t key) const {
  for (size_t i = slot_of(key, shift_);; i = (i + 1) & (slots_.size() - 1)) {
    if (slots_[i].id == kNoToken) return kNoToken;
    if (matches(slots_[i], token, key)) return slots_[i].id;
  }
}

TokenId Vocabulary::find_special(std::string_view name) const {
  const auto entry = specials_.find(std::string(name));
  return entry == specials_.end() ? kNoToken : entry->second;
}

TokenId Vocabulary::special_at(std::string_view text) const {
  if (text.empty() || !begins_special_[static_cast<uint8_t>(text[0])]) return kNoToken;
  for (size_t length : special_lengths_) {
    if (length > text.size()) continue;
    if (const TokenId id = find_special(text.substr(0, length)); id != kNoToken) return id;
  }
  return kNoToken;
}

}  // namespace puna::text
