#include "grammar/json_schema.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <set>

#include "base/error.h"
#include "grammar/integer_range.h"
#include "grammar/json_text.h"
#include "grammar/schema_keys.h"
#include "grammar/schema_string.h"
#include "io/text.h"

namespace puna::grammar {
namespace {

constexpr int kMaxReferences = 64;
constexpr size_t kMaxPrefix = 200, kMaxKeyBytes = 200, kMaxMergedBytes = size_t{16} << 20;
constexpr uint32_t kMaxCount = 100'000;

class Reader {
 public:
  Reader(const OrderedJson& root, std::string_view where)
      : root_(root), where_(where), source_(std::string(where)), json_(source_) {}

  Source read() {
    source_.root = rule_of_pointer("#");
    while (!pending_.empty()) {
      const auto [rule, schema, path] = pending_.front();
      pending_.pop_front();
      const ExprId body = compile(*schema, path);
      source_.define(rule, body);
    }
    return std::move(source_);
  }

 private:
  template <typename... Args>
  [[noreturn]] void error(const std::string& path, fmt::format_string<Args...> format, Args&&... args) const {
    fail(where_, "{}: {}", io::printable(path), fmt::format(format, std::forward<Args>(args)...));
  }

  /// A rule of its own for a schema within another; it is read later, so that depth costs no stack.
  ExprId sub(const OrderedJson& schema, const std::string& path) {
    const RuleId rule = source_.add_rule(path);
    pending_.push_back({rule, &schema, path});
    return source_.call(rule);
  }

  RuleId rule_of_pointer(const std::string& pointer) {
    const auto [entry, is_new] = by_pointer_.try_emplace(pointer, 0);
    if (is_new) {
      entry->second = source_.add_rule(pointer);
      pending_.push_back({entry->second, &resolve(pointer, pointer), pointer});
    }
    return entry->second;
  }

  /// Merged schemas of the same content are one rule: so references into each other through allOf come to an end.
  ExprId merged(OrderedJson schema, const std::string& path) {
    const auto [entry, is_new] = by_content_.try_emplace(schema.dump(), 0);
    if (is_new) {
      entry->second = source_.add_rule(path);
      pending_.push_back({entry->second, &owned_.emplace_back(std::move(schema)), path});
    }
    return source_.call(entry->second);
  }

  const OrderedJson& resolve(const std::string& pointer, const std::string& path) const {
    if (!pointer.starts_with('#'))
      error(path, "'$ref' to '{}': only references within the schema (#/...) work", io::printable(pointer));
    try {
      const OrderedJson& found = root_.at(OrderedJson::json_pointer(unescape(pointer.substr(1))));
      return found;
    } catch (const OrderedJson::exception&) {
      error(path, "'$ref' to '{}', which is not in the schema", io::printable(pointer));
    }
  }

  // A pointer in a URI may have characters as %HH.
  static std::string unescape(const std::string& text) {
    std::string result;
    for (size_t i = 0; i < text.size(); ++i) {
      const bool escaped = text[i] == '%' && i + 2 < text.size() && std::isxdigit(static_cast<uint8_t>(text[i + 1])) &&
                           std::isxdigit(static_cast<uint8_t>(text[i + 2]));
      result += escaped ? static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16)) : text[i];
      if (escaped) i += 2;
    }
    return result;
  }

  std::string reference(const OrderedJson& schema, const std::string& path) const {
    if (!schema["$ref"].is_string()) error(path, "'$ref' is not a string");
    return schema["$ref"];
  }

  ExprId compile(const OrderedJson& schema, const std::string& path) {
    if (schema.is_boolean()) return schema == true ? json_.value() : source_.choice({});
    if (!schema.is_object()) error(path, "a schema is an object, true or false");
    check_schema_keys(schema, where_, path);
    const auto restricts = [](const auto& key) { return !is_annotation(key); };
    size_t count = 0;
    for (const auto& [key, value] : schema.items()) count += restricts(key);
    if (count == 1 && schema.contains("$ref")) return source_.call(rule_of_pointer(reference(schema, path)));
    if (count == 1 && schema.contains("allOf") && list_of(schema, "allOf", path).size() == 1)
      return sub(schema["allOf"][0], path + "/allOf/0");
    if (schema.contains("$ref") || schema.contains("allOf")) {
      OrderedJson all = OrderedJson::object();
      flatten(schema, path, all, 0);
      return merged(std::move(all), path);
    }
    if (schema.contains("const") || schema.contains("enum")) return compile_values(schema, path);
    if (schema.contains("anyOf") || schema.contains("oneOf")) return compile_alternatives(schema, path);
    return compile_types(schema, path);
  }

  // The schema with what its references and the parts of its allOf demand.
  void flatten(const OrderedJson& schema, const std::string& path, OrderedJson& all, int depth) {
    if (depth > kMaxReferences || ++flattened_ > 100'000)
      error(path, "more than {} references lead into each other", kMaxReferences);
    if (schema.is_boolean() && schema == true) return;
    if (!schema.is_object()) error(path, "a part of allOf is an object or true");
    check_schema_keys(schema, where_, path);
    OrderedJson rest = OrderedJson::object();
    for (const auto& [key, value] : schema.items())
      if (key != "$ref" && key != "allOf" && !is_annotation(key)) rest[key] = value;
    merged_bytes_ += rest.dump().size();
    if (merged_bytes_ > kMaxMergedBytes)
      error(path, "references and allOf make more than {} MiB of it", kMaxMergedBytes >> 20);
    merge_schema(all, rest, where_, path);
    if (schema.contains("$ref")) {
      const std::string pointer = reference(schema, path);
      flatten(resolve(pointer, path), pointer, all, depth + 1);
    }
    if (!schema.contains("allOf")) return;
    const OrderedJson& parts = list_of(schema, "allOf", path);
    for (size_t i = 0; i < parts.size(); ++i) flatten(parts[i], fmt::format("{}/allOf/{}", path, i), all, depth + 1);
  }

  const OrderedJson& list_of(const OrderedJson& schema, const char* key, const std::string& path) const {
    if (!schema[key].is_array() || schema[key].empty()) error(path, "'{}' is not a list with something in it", key);
    return schema[key];
  }

  ExprId compile_values(const OrderedJson& schema, const std::string& path) {
    if (schema.contains("const") && schema.contains("enum")) error(path, "has both 'const' and 'enum'; one says all");
    for (const auto& [key, value] : schema.items())
      if (key != "const" && key != "enum" && key != "type" && key != "nullable" && !is_annotation(key))
        error(path, "'{}' beside 'enum' or 'const' is not supported; list the values that are left", key);
    const auto types = schema_types(schema, where_, path);
    const auto fits = [&](const OrderedJson& value) {
      if (types.empty() || !schema.contains("type")) return true;
      return std::any_of(types.begin(), types.end(), [&](const std::string& type) {
        if (type == "integer")
          return value.is_number_integer() ||
                 (value.is_number() && std::trunc(value.get<double>()) == value.get<double>());
        return type == value.type_name();
      });
    };
    std::vector<ExprId> choices;
    if (schema.contains("const")) {
      if (fits(schema["const"])) choices.push_back(json_.literal(schema["const"]));
    } else {
      for (const auto& value : list_of(schema, "enum", path))
        if (fits(value)) choices.push_back(json_.literal(value));
    }
    if (schema.value("nullable", false) && schema.contains("enum")) choices.push_back(json_.text("null"));
    return source_.choice(std::move(choices));
  }

  ExprId compile_alternatives(const OrderedJson& schema, const std::string& path) {
    if (schema.contains("anyOf") && schema.contains("oneOf")) error(path, "has both 'anyOf' and 'oneOf'; use one");
    const char* key = schema.contains("anyOf") ? "anyOf" : "oneOf";
    const OrderedJson& parts = list_of(schema, key, path);
    OrderedJson rest = OrderedJson::object();
    for (const auto& [name, value] : schema.items())
      if (name != key && !is_annotation(name)) rest[name] = value;
    std::vector<ExprId> choices;
    for (size_t i = 0; i < parts.size(); ++i) {
      const std::string part_path = fmt::format("{}/{}/{}", path, key, i);
      if (rest.empty()) {
        choices.push_back(sub(parts[i], part_path));
        continue;
      }
      OrderedJson all = OrderedJson::object();
      flatten(parts[i], part_path, all, 0);
      merge_schema(all, rest, where_, part_path);
      choices.push_back(merged(std::move(all), part_path));
    }
    return source_.choice(std::move(choices));
  }

  ExprId compile_types(const OrderedJson& schema, const std::string& path) {
    const auto types = schema_types(schema, where_, path);
    if (types.empty()) return json_.value();
    std::vector<ExprId> choices;
    for (const std::string& type : types) {
      if (type == "object") choices.push_back(compile_object(schema, path));
      if (type == "array") choices.push_back(compile_array(schema, path));
      if (type == "string") choices.push_back(schema_string(source_, json_, schema, where_, path));
      if (type == "number") choices.push_back(schema_number(source_, json_, schema, false, where_, path));
      if (type == "integer") choices.push_back(schema_number(source_, json_, schema, true, where_, path));
      if (type == "boolean") choices.push_back(source_.choice({json_.text("true"), json_.text("false")}));
      if (type == "null") choices.push_back(json_.text("null"));
    }
    return source_.choice(std::move(choices));
  }

  std::vector<std::string> required_of(const OrderedJson& schema, const std::string& path) const {
    std::vector<std::string> names;
    if (!schema.contains("required")) return names;
    if (!schema["required"].is_array()) error(path, "'required' is not a list of names");
    for (const auto& name : schema["required"]) {
      if (!name.is_string()) error(path, "'required' is not a list of names");
      names.push_back(name);
    }
    return names;
  }

  ExprId named_member(const std::string& name, ExprId value) {
    return json_.member(json_.text(OrderedJson(name).dump()), value);
  }

  ExprId compile_object(const OrderedJson& schema, const std::string& path) {
    static const OrderedJson kNone = OrderedJson::object(), kAny = true;
    const OrderedJson& properties = schema.contains("properties") ? schema["properties"] : kNone;
    if (!properties.is_object()) error(path, "'properties' is not an object");
    const std::vector<std::string> required = required_of(schema, path);
    const bool listed = !properties.empty();
    const OrderedJson* additional = schema.contains("additionalProperties") ? &schema["additionalProperties"] : nullptr;
    if (!additional && !listed) additional = &kAny;
    const bool closed = !additional || *additional == false;
    std::vector<ExprId> parts;
    std::vector<bool> optional;
    std::vector<std::string> names;
    const std::set<std::string_view> demanded(required.begin(), required.end());
    for (const auto& [name, property] : properties.items()) {
      parts.push_back(named_member(name, sub(property, path + "/properties/" + name)));
      optional.push_back(!demanded.contains(name));
      names.push_back(name);
    }
    std::set<std::string, std::less<>> listed_names(names.begin(), names.end());
    for (const std::string& name : required) {
      if (!listed_names.insert(name).second) continue;
      if (closed) error(path, "'required' names '{}', which is not in 'properties'", io::printable(name));
      parts.push_back(named_member(name, sub(*additional, path + "/additionalProperties")));
      optional.push_back(false);
      names.push_back(name);
    }
    const uint32_t least = schema_count(schema, "minProperties", 0, kMaxCount, where_, path);
    const uint32_t most = schema_count(schema, "maxProperties", kNoLimit, kMaxCount, where_, path);
    if (!names.empty() && (least > 0 || most != kNoLimit))
      error(path, "'minProperties' and 'maxProperties' beside 'properties' are not supported; use 'required'");
    if (!closed) {
      parts.push_back(more_members(*additional, names, std::max(least, 1u), most, path));
      optional.push_back(least == 0);
    }
    const ExprId separator = source_.sequence({json_.space(), json_.comma()});
    const bool filled = std::find(optional.begin(), optional.end(), false) != optional.end();
    return json_.in_brackets('{', source_.join(std::move(parts), std::move(optional), separator), '}', filled);
  }

  // Members with other names than those of the list.
  ExprId more_members(const OrderedJson& schema, const std::vector<std::string>& names, uint32_t least, uint32_t most,
                      const std::string& path) {
    for (const std::string& name : names)
      if (name.size() > kMaxKeyBytes)
        error(path, "a name has more than {} bytes beside 'additionalProperties'", kMaxKeyBytes);
    const ExprId key = names.empty() ? json_.string() : json_.other_key(names);
    const RuleId member = source_.add_rule(path + "/additionalProperties");
    source_.define(member, json_.member(key, sub(schema, path + "/additionalProperties")));
    return json_.list(source_.call(member), least, most);
  }

  ExprId compile_array(const OrderedJson& schema, const std::string& path) {
    static const OrderedJson kAny = true;
    if (schema.contains("uniqueItems") && schema["uniqueItems"] != false)
      error(path, "the key 'uniqueItems' is not supported; leave it out");
    const uint32_t least = schema_count(schema, "minItems", 0, kMaxCount, where_, path);
    const uint32_t most = schema_count(schema, "maxItems", kNoLimit, kMaxCount, where_, path);
    if (least > most) error(path, "'minItems' {} is above 'maxItems' {}", least, most);
    std::vector<ExprId> prefix;
    if (schema.contains("prefixItems")) {
      const OrderedJson& parts = list_of(schema, "prefixItems", path);
      if (parts.size() > kMaxPrefix) error(path, "'prefixItems' has more than {} elements", kMaxPrefix);
      for (size_t i = 0; i < parts.size() && i < most; ++i)
        prefix.push_back(sub(parts[i], fmt::format("{}/prefixItems/{}", path, i)));
    }
    const OrderedJson* items = schema.contains("items") ? &schema["items"] : nullptr;
    if (items && items->is_array()) error(path, "'items' is a list; its name is 'prefixItems' now");
    if (!items && (prefix.empty() || least > prefix.size())) items = &kAny;
    const auto count = static_cast<uint32_t>(prefix.size());
    ExprId rest = source_.sequence({});
    if (items && *items != false && most > count) {
      const ExprId item = sub(*items, path + "/items");
      const uint32_t more_least = least > count ? least - count : 0,
                     more_most = most == kNoLimit ? kNoLimit : most - count;
      if (count == 0) return json_.in_brackets('[', json_.list(item, more_least, more_most), ']', least > 0);
      rest = source_.repeat(source_.sequence({json_.space(), json_.comma(), item}), more_least, more_most);
    } else if (least > count) {
      return source_.choice({});
    }
    for (size_t i = prefix.size(); i-- > 0;) {
      rest = source_.sequence({prefix[i], rest});
      if (i > 0) rest = source_.sequence({json_.space(), json_.comma(), rest});
      if (i >= least) rest = source_.optional(rest);
    }
    return json_.in_brackets('[', rest, ']', least > 0);
  }

  struct Pending {
    RuleId rule;
    const OrderedJson* schema;
    std::string path;
  };

  const OrderedJson& root_;
  std::string_view where_;
  Source source_;
  JsonText json_;
  std::map<std::string, RuleId> by_pointer_;
  std::map<std::string, RuleId> by_content_;  // of merged schemas, as text
  std::deque<Pending> pending_;
  std::deque<OrderedJson> owned_;
  size_t flattened_ = 0, merged_bytes_ = 0;
};

}  // namespace

Source read_json_schema(const OrderedJson& schema, std::string_view where) { return Reader(schema, where).read(); }

Source any_json(bool object) {
  Source source("any JSON");
  JsonText json(source);
  const RuleId root = source.add_rule("root");
  source.define(root, object ? json.object() : json.value());
  source.root = root;
  return source;
}

}  // namespace puna::grammar
