// Regular expressions of JSON schemas, as far as they are regular.
#pragma once

#include <string>
#include <string_view>

#include "grammar/json_text.h"

namespace puna::grammar {

/// The contents of JSON strings (without the quotes) that match an ECMA 262 pattern: literals, . [classes] \d \w \s \D
/// \W \S, escapes, groups ( ) (?: ), |, * + ? {m,n}, ^ at the beginning and $ at the end; without these anything may
/// stand before or behind. Throws Error at `where` for the rest: look-around, back references, word boundaries.
ExprId pattern_expr(Source& source, JsonText& json, std::string_view pattern, std::string_view where);

}  // namespace puna::grammar
