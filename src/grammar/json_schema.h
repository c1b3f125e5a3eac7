// JSON schemas as grammars.
#pragma once

#include <string_view>

#include "base/json.h"
#include "grammar/source.h"

namespace puna::grammar {

/// Texts that a JSON schema (draft 2020-12, and `definitions`, `nullable`) accepts. Narrower than the standard, on
/// purpose: members come in the order of `properties`, further members and elements only where the schema asks for
/// them, and oneOf is read as anyOf. Throws Error naming key and path for what is not supported: nothing that restricts
/// is ignored.
Source read_json_schema(const OrderedJson& schema, std::string_view where);

/// Any JSON value, or any JSON object.
Source any_json(bool object);

}  // namespace puna::grammar
