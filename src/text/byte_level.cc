#include "text/byte_level.h"

#include <array>

#include "text/utf8.h"

namespace puna::text {
namespace {

constexpr uint32_t kAlphabetEnd = 0x144;

/// Code point -> byte; -1 outside the alphabet. Printable Latin-1 stands for itself, the rest follow from U+0100 on.
std::array<int16_t, kAlphabetEnd> make_alphabet() {
  std::array<int16_t, kAlphabetEnd> bytes;
  bytes.fill(-1);
  uint32_t next = 0x100;
  for (int16_t b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    bytes[printable ? static_cast<uint32_t>(b) : next++] = b;
  }
  return bytes;
}

const std::array<int16_t, kAlphabetEnd>& alphabet() {
  static const auto kAlphabet = make_alphabet();
  return kAlphabet;
}

}  // namespace

std::optional<std::string> bytes_from_byte_level(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char c = read_utf8(text);
    if (!c.valid || c.code_point >= kAlphabetEnd || alphabet()[c.code_point] < 0) return std::nullopt;
    out += static_cast<char>(alphabet()[c.code_point]);
    text.remove_prefix(static_cast<size_t>(c.length));
  }
  return out;
}

std::string byte_level_from_bytes(std::string_view bytes) {
  static const auto kCharacters = [] {
    std::array<std::string, 256> characters;
    for (uint32_t code = 0; code < kAlphabetEnd; ++code)
      if (alphabet()[code] >= 0) append_utf8(characters[static_cast<size_t>(alphabet()[code])], code);
    return characters;
  }();
  std::string out;
  for (char c : bytes) out += kCharacters[static_cast<uint8_t>(c)];
  return out;
}

std::array<uint8_t, 256> bytes_in_byte_level_order() {
  std::array<uint8_t, 256> bytes;
  size_t n = 0;
  for (int16_t byte : alphabet())
    if (byte >= 0) bytes[n++] = static_cast<uint8_t>(byte);
  return bytes;
}

}  // namespace puna::text
