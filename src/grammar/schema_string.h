// Strings and numbers of JSON schemas.
#pragma once

#include <string>
#include <string_view>

#include "grammar/json_text.h"

namespace puna::grammar {

/// A string with its minLength, maxLength, pattern, format.
ExprId schema_string(Source& source, JsonText& json, const OrderedJson& schema, std::string_view where,
                     const std::string& path);

/// A number or integer with its minimum and maximum. Bounds of numbers that are no integers must be integers.
ExprId schema_number(Source& source, JsonText& json, const OrderedJson& schema, bool integer, std::string_view where,
                     const std::string& path);

/// The value of a key that is a count of at most `limit`; `absent` where there is none.
uint32_t schema_count(const OrderedJson& schema, const char* key, uint32_t absent, uint32_t limit,
                      std::string_view where, const std::string& path);

}  // namespace puna::grammar
