// Base64 (RFC 4648, section 4).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace puna::io {

/// Padded; of no bytes it is empty.
std::string encode_base64(std::string_view bytes);

/// The bytes, or nullopt. Strict: not empty, padded, no other characters, unused bits zero.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace puna::io
