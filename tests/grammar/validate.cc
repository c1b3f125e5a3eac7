#include "tests/grammar/validate.h"

#include <algorithm>
#include <cmath>
#include <regex>

namespace puna::grammar::test {
namespace {

bool is_type(const OrderedJson& value, const std::string& type) {
  if (type == "integer") return value.is_number() && std::trunc(value.get<double>()) == value.get<double>();
  return type == value.type_name();
}

size_t code_points(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

bool object_is_valid(const OrderedJson& value, const OrderedJson& schema, const OrderedJson& root) {
  for (const auto& name : schema.value("required", OrderedJson::array()))
    if (!value.contains(name)) return false;
  const OrderedJson properties = schema.value("properties", OrderedJson::object());
  for (const auto& [name, member] : value.items()) {
    if (properties.contains(name) && !is_valid(member, properties[name], root)) return false;
    if (!properties.contains(name) && schema.contains("additionalProperties") &&
        !is_valid(member, schema["additionalProperties"], root))
      return false;
  }
  return true;
}

bool array_is_valid(const OrderedJson& value, const OrderedJson& schema, const OrderedJson& root) {
  const OrderedJson prefix = schema.value("prefixItems", OrderedJson::array());
  for (size_t i = 0; i < value.size(); ++i) {
    if (i < prefix.size() && !is_valid(value[i], prefix[i], root)) return false;
    if (i >= prefix.size() && schema.contains("items") && !is_valid(value[i], schema["items"], root)) return false;
  }
  return value.size() >= schema.value("minItems", size_t{0}) && value.size() <= schema.value("maxItems", SIZE_MAX);
}

bool scalar_is_valid(const OrderedJson& value, const OrderedJson& schema) {
  if (value.is_number()) {
    const auto x = value.get<double>();
    return x >= schema.value("minimum", -INFINITY) && x <= schema.value("maximum", INFINITY) &&
           x > schema.value("exclusiveMinimum", -INFINITY) && x < schema.value("exclusiveMaximum", INFINITY);
  }
  if (!value.is_string()) return true;
  const std::string text = value;
  if (schema.contains("pattern") && !std::regex_search(text, std::regex(schema["pattern"].get<std::string>())))
    return false;
  return code_points(text) >= schema.value("minLength", size_t{0}) &&
         code_points(text) <= schema.value("maxLength", SIZE_MAX);
}

}  // namespace

bool is_valid(const OrderedJson& value, const OrderedJson& schema, const OrderedJson& root) {
  if (schema.is_boolean()) return schema;
  const auto holds = [&](const OrderedJson& part) { return is_valid(value, part, root); };
  if (schema.contains("$ref") &&
      !holds(root.at(OrderedJson::json_pointer(schema["$ref"].get<std::string>().substr(1)))))
    return false;
  if (schema.contains("allOf") && !std::all_of(schema["allOf"].begin(), schema["allOf"].end(), holds)) return false;
  for (const char* key : {"anyOf", "oneOf"})
    if (schema.contains(key) && !std::any_of(schema[key].begin(), schema[key].end(), holds)) return false;
  if (schema.contains("const") && value != schema["const"]) return false;
  if (schema.contains("enum") && std::find(schema["enum"].begin(), schema["enum"].end(), value) == schema["enum"].end())
    return value.is_null() && schema.value("nullable", false);
  if (value.is_null() && schema.value("nullable", false)) return true;
  if (schema.contains("type")) {
    const OrderedJson types = schema["type"].is_array() ? schema["type"] : OrderedJson::array({schema["type"]});
    const auto fits = [&](const std::string& type) { return is_type(value, type); };
    if (std::none_of(types.begin(), types.end(), fits)) return false;
  }
  if (value.is_object()) return object_is_valid(value, schema, root);
  if (value.is_array()) return array_is_valid(value, schema, root);
  return scalar_is_valid(value, schema);
}

}  // namespace puna::grammar::test
