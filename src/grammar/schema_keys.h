// The keys of JSON schemas: which are understood, and how two schemas that hold at once become one.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace puna::grammar {

/// Throws Error for keys that are not supported, or not known at all (with the nearest known one).
void check_schema_keys(const OrderedJson& schema, std::string_view where, std::string_view path);

/// The types that a schema allows: those of `type` and `nullable`, else those its keys speak of; empty: any.
std::vector<std::string> schema_types(const OrderedJson& schema, std::string_view where, std::string_view path);

/// Keys that restrict nothing: titles, descriptions, examples, definitions.
bool is_annotation(std::string_view key);

/// Adds to `into` what `from` demands. Throws Error for keys that both hold with different values, but for properties
/// and required.
void merge_schema(OrderedJson& into, const OrderedJson& from, std::string_view where, std::string_view path);

}  // namespace puna::grammar
