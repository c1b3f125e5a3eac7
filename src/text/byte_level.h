// The byte-level alphabet of tokenizer.json and GGUF: every byte as one printable character (GPT-2's table).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace puna::text {

/// The bytes that `text` spells; nullopt when it has a character outside the alphabet.
std::optional<std::string> bytes_from_byte_level(std::string_view text);

/// The characters that stand for `bytes`, as UTF-8.
std::string byte_level_from_bytes(std::string_view bytes);

/// All 256 bytes in the order of their characters: the order of the first ranks in Meta's file.
std::array<uint8_t, 256> bytes_in_byte_level_order();

}  // namespace puna::text
