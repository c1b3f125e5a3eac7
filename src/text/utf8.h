// UTF-8 by the rules of Python's codec: strict validation, and replacement of each maximal invalid part by U+FFFD.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace puna::text {

/// Bytes of the longest prefix that is valid UTF-8 (no surrogates, nothing overlong, nothing above U+10FFFF).
size_t valid_utf8_prefix(std::string_view bytes);

/// Bytes of the character that `lead` begins in valid UTF-8.
inline size_t valid_utf8_length(char lead) {
  const auto byte = static_cast<uint8_t>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

/// The text with every maximal invalid part as U+FFFD, as Python's bytes.decode("utf-8", "replace") gives it.
std::string replace_invalid_utf8(std::string_view bytes);

/// As replace_invalid_utf8 for bytes that go on: `consumed` receives how many bytes the result stands for; the rest
/// (at most 3 bytes) may still become a character.
std::string replace_invalid_utf8_prefix(std::string_view bytes, size_t& consumed);

/// Appends the UTF-8 of one code point.
void append_utf8(std::string& out, uint32_t code_point);

/// A character of a text that need not be valid: an invalid byte stands for itself.
struct Utf8Char {
  uint32_t code_point;
  int length;
  bool valid;
};
/// Reads the character at the front of non-empty `bytes`.
Utf8Char read_utf8(std::string_view bytes);

}  // namespace puna::text
