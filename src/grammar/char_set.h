// Sets of Unicode characters, and their UTF-8 as sequences of byte ranges.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

namespace puna::grammar {

inline constexpr uint32_t kLastCodePoint = 0x10FFFF;

struct ByteRange {
  uint8_t first, last;
};

/// Code points without surrogates, as sorted ranges that do not touch.
class CharSet {
 public:
  CharSet() = default;
  CharSet(std::initializer_list<std::pair<uint32_t, uint32_t>> ranges);

  void add(uint32_t first, uint32_t last);
  void add(const CharSet& other);
  CharSet complement() const;
  CharSet without(const CharSet& other) const;
  bool empty() const { return ranges_.empty(); }
  bool contains(uint32_t code_point) const;
  const std::vector<std::pair<uint32_t, uint32_t>>& ranges() const { return ranges_; }

  /// Calls `sequence` with 1 to 4 byte ranges; together the sequences are exactly the UTF-8 of the set.
  void for_each_utf8(const std::function<void(std::span<const ByteRange>)>& sequence) const;

 private:
  std::vector<std::pair<uint32_t, uint32_t>> ranges_;
};

}  // namespace puna::grammar
