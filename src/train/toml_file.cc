#include "train/toml_file.h"

#include <toml++/toml.h>
#include <cmath>

#include "base/error.h"

namespace puna::train {
namespace {

constexpr int kMaxDepth = 32;

// Of a file's errors `lines` names the line; an override has one alone.
Json to_json(const toml::node& node, std::string_view where, bool lines, int depth) {
  const std::string line = lines ? fmt::format("line {}: ", node.source().begin.line) : "";
  if (depth > kMaxDepth) fail(where, "tables are nested deeper than {}", kMaxDepth);
  if (const toml::table* table = node.as_table()) {
    Json json = Json::object();
    for (const auto& [key, value] : *table) json[std::string(key.str())] = to_json(value, where, lines, depth + 1);
    return json;
  }
  if (const toml::array* array = node.as_array()) {
    Json json = Json::array();
    for (const toml::node& value : *array) json.push_back(to_json(value, where, lines, depth + 1));
    return json;
  }
  if (const auto* value = node.as_string()) return value->get();
  if (const auto* value = node.as_integer()) {
    if (value->get() < 0) return value->get();
    return static_cast<uint64_t>(value->get());
  }
  if (const auto* value = node.as_boolean()) return value->get();
  if (const auto* value = node.as_floating_point()) {
    if (std::isfinite(value->get())) return value->get();
    fail(where, "{}a number must be finite", line);
  }
  fail(where, "{}dates and times mean nothing here", line);
}

}  // namespace

Json parse_toml(std::string_view text, std::string_view where) {
  try {
    return to_json(toml::parse(text), where, true, 0);
  } catch (const toml::parse_error& error) {
    fail(where, "line {}: {}", error.source().begin.line, error.description());
  }
}

Json parse_toml_value(std::string_view text, std::string_view where) {
  try {
    const toml::table table = toml::parse("value = " + std::string(text));
    if (table.size() == 1) return to_json(*table.get("value"), where, false, 0);
  } catch (const toml::parse_error&) {
  }
  return std::string(text);
}

}  // namespace puna::train
