// The byte-level alphabet of tokenizer.json and GGUF: every byte as one printable character (GPT-2's table).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace puna::text {

/// The bytes that `text` spells; nullopt when it has a character outside the alphabet.
std::optional<std::string> bytes_from_byte_level(std::string_view text);

}  // namespace puna::text
