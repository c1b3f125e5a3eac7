#include "grammar/char_set.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "text/utf8.h"

namespace puna::grammar {
namespace {

constexpr uint32_t kFirstSurrogate = 0xD800, kLastSurrogate = 0xDFFF;
using Sequence = std::function<void(std::span<const ByteRange>)>;

// Splits until the bytes of all characters between differ independently of each other.
void split(uint32_t first, uint32_t last, const Sequence& sequence) {
  for (const uint32_t longest : {0x7Fu, 0x7FFu, 0xFFFFu})
    if (first <= longest && longest < last) {
      split(first, longest, sequence);
      return split(longest + 1, last, sequence);
    }
  for (int i = 1; i < 4 && first >= 0x80; ++i) {
    const uint32_t low = (1u << (6 * i)) - 1;
    if ((first & ~low) == (last & ~low)) continue;
    if ((first & low) != 0) {
      split(first, first | low, sequence);
      return split((first | low) + 1, last, sequence);
    }
    if ((last & low) != low) {
      split(first, (last & ~low) - 1, sequence);
      return split(last & ~low, last, sequence);
    }
  }
  std::string a, b;
  text::append_utf8(a, first);
  text::append_utf8(b, last);
  ByteRange ranges[4];
  for (size_t i = 0; i < a.size(); ++i) ranges[i] = {static_cast<uint8_t>(a[i]), static_cast<uint8_t>(b[i])};
  sequence({ranges, a.size()});
}

}  // namespace

CharSet::CharSet(std::initializer_list<std::pair<uint32_t, uint32_t>> ranges) {
  for (const auto& [first, last] : ranges) add(first, last);
}

void CharSet::add(uint32_t first, uint32_t last) {
  PUNA_CHECK(first <= last && last <= kLastCodePoint, "{:x} to {:x}", first, last);
  if (first <= kLastSurrogate && last >= kFirstSurrogate) {
    if (first < kFirstSurrogate) add(first, kFirstSurrogate - 1);
    if (last > kLastSurrogate) add(kLastSurrogate + 1, last);
    return;
  }
  auto begin = std::lower_bound(ranges_.begin(), ranges_.end(), first,
                                [](const auto& range, uint32_t value) { return range.second + 1 < value; });
  auto end = begin;
  for (; end != ranges_.end() && end->first <= last + 1; ++end) {
    first = std::min(first, end->first);
    last = std::max(last, end->second);
  }
  ranges_.insert(ranges_.erase(begin, end), {first, last});
}

void CharSet::add(const CharSet& other) {
  for (const auto& [first, last] : other.ranges_) add(first, last);
}

CharSet CharSet::complement() const {
  CharSet result;
  uint32_t next = 0;
  for (const auto& [first, last] : ranges_) {
    if (first > next) result.add(next, first - 1);
    next = last + 1;
  }
  if (next <= kLastCodePoint) result.add(next, kLastCodePoint);
  return result;
}

CharSet CharSet::without(const CharSet& other) const {
  CharSet rest = complement();
  rest.add(other);
  return rest.complement();
}

bool CharSet::contains(uint32_t code_point) const {
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [&](const auto& range) { return range.first <= code_point && code_point <= range.second; });
}

void CharSet::for_each_utf8(const Sequence& sequence) const {
  for (const auto& [first, last] : ranges_) split(first, last, sequence);
}

}  // namespace puna::grammar
