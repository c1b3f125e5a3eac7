#include "io/text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace puna::io {
namespace {

constexpr size_t kShownBytes = 120;
constexpr size_t kShownExtents = 8;

// Length of the well-formed sequence at the start of `text`; 0 when it is malformed.
size_t sequence_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  const uint8_t second = byte(1);
  if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F)) return 0;
  if ((lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F)) return 0;
  return length;
}

}  // namespace

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = sequence_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string printable(std::string_view text) {
  std::string shown;
  while (!text.empty()) {
    if (shown.size() >= kShownBytes) return shown + "...";
    const size_t length = sequence_length(text);
    const auto lead = static_cast<uint8_t>(text[0]);
    if (length == 0 || lead < 0x20 || lead == 0x7F)
      shown += '?';
    else
      shown += text.substr(0, length);
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return shown;
}

std::string shape_text(std::span<const int64_t> shape) {
  const auto head = shape.first(std::min(shape.size(), kShownExtents));
  return fmt::format("[{}{}]", fmt::join(head, ", "), shape.size() > kShownExtents ? ", ..." : "");
}

}  // namespace puna::io
