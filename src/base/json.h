// Reading JSON from outside: one clear error with the place, duplicate keys refused, nesting and size bounded.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

namespace puna {

using Json = nlohmann::json;
/// JSON whose objects keep the order in which they were written; looking up a key is linear.
using OrderedJson = nlohmann::ordered_json;

/// Parses UTF-8 JSON. `where` names the file in errors. Throws Error on syntax errors, duplicate keys within one
/// object, and nesting deeper than 128.
Json parse_json(std::string_view text, std::string_view where);

/// As parse_json, keeping the order of keys; refuses objects of more than 10,000 keys.
OrderedJson parse_ordered_json(std::string_view text, std::string_view where);

/// Reads and parses a whole file; refuses files over `max_bytes`.
Json read_json_file(const std::filesystem::path& path, int64_t max_bytes = 64 << 20);

}  // namespace puna
