// Strings from outside: are they UTF-8, and how to show them in a one-line error.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace puna::io {

/// True for well-formed UTF-8 (no overlong forms, no surrogates, at most U+10FFFF).
bool is_valid_utf8(std::string_view text);

/// The text on one line: control characters and malformed UTF-8 become '?', and over 120 bytes it is cut with "...".
std::string printable(std::string_view text);

/// "[2, 3, 4]"; more than 8 extents are cut with "...".
std::string shape_text(std::span<const int64_t> shape);

}  // namespace puna::io
