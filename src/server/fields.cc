#include "server/fields.h"

#include <fmt/format.h>

#include "server/api_error.h"

namespace puna::server {
namespace {

constexpr size_t kShown = 60;  // characters of a wrong value

}  // namespace

void wrong_field(const std::string& path, const OrderedJson& value, const std::string& expected) {
  std::string shown = value.dump(-1, ' ', true, OrderedJson::error_handler_t::replace);
  if (shown.size() > kShown) shown = shown.substr(0, kShown) + "...";
  throw ApiError(400, fmt::format("'{}' is {}; expected {}", path, shown, expected), path, "invalid_value");
}

Fields::Fields(const OrderedJson& object, std::string path) : object_(object), path_(std::move(path)) {
  if (!object.is_object()) wrong_field(path_.empty() ? "body" : path_, object, "an object");
}

std::string Fields::path_of(const std::string& name) const { return path_.empty() ? name : path_ + "." + name; }

const OrderedJson* Fields::find(const std::string& name) {
  known_.insert(name);
  const auto at = object_.find(name);
  return at == object_.end() || at->is_null() ? nullptr : &*at;
}

std::optional<double> Fields::number(const std::string& name, double least, double most) {
  const OrderedJson* value = find(name);
  if (!value) return std::nullopt;
  if (!value->is_number() || !(value->get<double>() >= least && value->get<double>() <= most))
    wrong_field(path_of(name), *value, fmt::format("a number from {} to {}", least, most));
  return value->get<double>();
}

std::optional<int64_t> Fields::integer(const std::string& name, int64_t least, int64_t most) {
  const OrderedJson* value = find(name);
  if (!value) return std::nullopt;
  const bool fits = value->is_number_integer() &&
                    (!value->is_number_unsigned() || value->get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX));
  if (!fits || value->get<int64_t>() < least || value->get<int64_t>() > most)
    wrong_field(path_of(name), *value, fmt::format("a whole number from {} to {}", least, most));
  return value->get<int64_t>();
}

std::optional<bool> Fields::boolean(const std::string& name) {
  const OrderedJson* value = find(name);
  if (!value) return std::nullopt;
  if (!value->is_boolean()) wrong_field(path_of(name), *value, "true or false");
  return value->get<bool>();
}

std::optional<std::string> Fields::text(const std::string& name) {
  const OrderedJson* value = find(name);
  if (!value) return std::nullopt;
  if (!value->is_string()) wrong_field(path_of(name), *value, "a string");
  return value->get<std::string>();
}

std::vector<std::string> Fields::texts(const std::string& name) {
  const OrderedJson* value = find(name);
  if (!value) return {};
  if (value->is_string()) return {value->get<std::string>()};
  std::vector<std::string> all;
  if (!value->is_array()) wrong_field(path_of(name), *value, "a string or an array of strings");
  for (const OrderedJson& one : *value) {
    if (!one.is_string()) wrong_field(path_of(name), one, "a string or an array of strings");
    all.push_back(one.get<std::string>());
  }
  return all;
}

const OrderedJson& Fields::required(const std::string& name) {
  const OrderedJson* value = find(name);
  if (!value)
    throw ApiError(400, fmt::format("'{}' is missing", path_of(name)), path_of(name), "missing_required_parameter");
  return *value;
}

std::string Fields::required_text(const std::string& name) {
  required(name);
  return *text(name);
}

void Fields::ignore(std::initializer_list<const char*> names) {
  for (const char* name : names) known_.insert(name);
}

std::vector<std::string> Fields::unknown() const {
  constexpr size_t kMostNames = 64, kLongestName = 128;  // they stay as long as the request runs
  std::vector<std::string> names;
  for (const auto& [name, value] : object_.items()) {
    if (names.size() < kMostNames && name.size() <= kLongestName && !known_.contains(name)) names.push_back(name);
  }
  return names;
}

}  // namespace puna::server
