#include "grammar/schema_keys.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/suggest.h"
#include "io/text.h"

namespace puna::grammar {
namespace {

// What a key speaks of: a type, all types (""), or nothing ("-").
const std::map<std::string, const char*, std::less<>>& known_keys() {
  static const std::map<std::string, const char*, std::less<>> keys = {{"$ref", ""},
                                                                       {"allOf", ""},
                                                                       {"anyOf", ""},
                                                                       {"oneOf", ""},
                                                                       {"enum", ""},
                                                                       {"const", ""},
                                                                       {"type", ""},
                                                                       {"nullable", ""},
                                                                       {"properties", "object"},
                                                                       {"required", "object"},
                                                                       {"additionalProperties", "object"},
                                                                       {"minProperties", "object"},
                                                                       {"maxProperties", "object"},
                                                                       {"items", "array"},
                                                                       {"prefixItems", "array"},
                                                                       {"minItems", "array"},
                                                                       {"maxItems", "array"},
                                                                       {"uniqueItems", "array"},
                                                                       {"minLength", "string"},
                                                                       {"maxLength", "string"},
                                                                       {"pattern", "string"},
                                                                       {"format", "string"},
                                                                       {"minimum", "number"},
                                                                       {"maximum", "number"},
                                                                       {"exclusiveMinimum", "number"},
                                                                       {"exclusiveMaximum", "number"},
                                                                       {"$schema", "-"},
                                                                       {"$id", "-"},
                                                                       {"$comment", "-"},
                                                                       {"$anchor", "-"},
                                                                       {"$defs", "-"},
                                                                       {"definitions", "-"},
                                                                       {"title", "-"},
                                                                       {"description", "-"},
                                                                       {"default", "-"},
                                                                       {"examples", "-"},
                                                                       {"example", "-"},
                                                                       {"deprecated", "-"},
                                                                       {"readOnly", "-"},
                                                                       {"writeOnly", "-"}};
  return keys;
}

constexpr const char* kUnsupported[] = {"not",
                                        "if",
                                        "then",
                                        "else",
                                        "dependentSchemas",
                                        "dependentRequired",
                                        "dependencies",
                                        "patternProperties",
                                        "propertyNames",
                                        "unevaluatedProperties",
                                        "unevaluatedItems",
                                        "additionalItems",
                                        "contains",
                                        "minContains",
                                        "maxContains",
                                        "multipleOf",
                                        "contentEncoding",
                                        "contentMediaType",
                                        "contentSchema",
                                        "$dynamicRef",
                                        "$dynamicAnchor",
                                        "$recursiveRef",
                                        "$vocabulary"};

constexpr const char* kTypes[] = {"object", "array", "string", "number", "integer", "boolean", "null"};

void merge_required(OrderedJson& into, const OrderedJson& from) {
  if (!into.is_array() || !from.is_array()) return;  // reading it complains
  for (const auto& name : from)
    if (std::find(into.begin(), into.end(), name) == into.end()) into.push_back(name);
}

// additionalProperties speaks of the properties of its own schema alone.
void check_additional(const OrderedJson& closed, const OrderedJson& other, std::string_view where,
                      std::string_view path) {
  if (!closed.contains("additionalProperties") || !other.contains("properties")) return;
  if (!other["properties"].is_object()) return;
  const OrderedJson none = OrderedJson::object();
  const OrderedJson& own = closed.contains("properties") ? closed["properties"] : none;
  for (const auto& [name, value] : other["properties"].items())
    if (!own.contains(name))
      fail(where, "{}: 'additionalProperties' of one part of allOf speaks of '{}' of another; put both in one schema",
           path, io::printable(name));
}

}  // namespace

bool is_annotation(std::string_view key) {
  const auto known = known_keys().find(key);
  return known != known_keys().end() && std::string_view(known->second) == "-";
}

void check_schema_keys(const OrderedJson& schema, std::string_view where, std::string_view path) {
  for (const auto& [key, value] : schema.items()) {
    if (known_keys().contains(key)) continue;
    if (std::find(std::begin(kUnsupported), std::end(kUnsupported), key) != std::end(kUnsupported))
      fail(where, "{}: the key '{}' is not supported; leave it out, or write a grammar", path, key);
    std::vector<std::string> names;
    for (const auto& known : known_keys()) names.push_back(known.first);
    const std::string nearest = nearest_name(key, names);
    fail(where, "{}: unknown key '{}'{}", path, io::printable(key),
         nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest));
  }
}

std::vector<std::string> schema_types(const OrderedJson& schema, std::string_view where, std::string_view path) {
  std::vector<std::string> types;
  const auto add = [&](const OrderedJson& name) {
    const bool known = name.is_string() && std::find(std::begin(kTypes), std::end(kTypes), name) != std::end(kTypes);
    if (!known)
      fail(where, "{}: the type {} is none of object, array, string, number, integer, boolean, null", path,
           io::printable(name.dump(-1, ' ', false, OrderedJson::error_handler_t::replace)));
    if (std::find(types.begin(), types.end(), name) == types.end()) types.push_back(name);
  };
  if (schema.contains("type") && schema["type"].is_array()) {
    for (const auto& name : schema["type"]) add(name);
    if (types.empty()) fail(where, "{}: 'type' is an empty list", path);
  } else if (schema.contains("type")) {
    add(schema["type"]);
  } else {
    for (const auto& [key, value] : schema.items())
      if (const std::string_view of = known_keys().find(key)->second; !of.empty() && of != "-") add(OrderedJson(of));
  }
  if (schema.contains("nullable")) {
    if (!schema["nullable"].is_boolean()) fail(where, "{}: 'nullable' is not true or false", path);
    if (schema["nullable"] == true && !types.empty()) add("null");
  }
  return types;
}

void merge_schema(OrderedJson& into, const OrderedJson& from, std::string_view where, std::string_view path) {
  check_additional(into, from, where, path);
  check_additional(from, into, where, path);
  for (const auto& [key, value] : from.items()) {
    if (is_annotation(key)) continue;
    if (!into.contains(key)) {
      into[key] = value;
    } else if (key == "required") {
      merge_required(into[key], value);
    } else if (key == "properties" && value.is_object() && into[key].is_object()) {
      for (const auto& [name, property] : value.items()) {
        if (into[key].contains(name) && into[key][name] != property)
          fail(where, "{}: two parts of allOf describe the property '{}' differently; describe it once", path,
               io::printable(name));
        into[key][name] = property;
      }
    } else if (into[key] != value) {
      fail(where, "{}: the key '{}' has different values in two schemas that both hold; write one that says both", path,
           io::printable(key));
    }
  }
}

}  // namespace puna::grammar
