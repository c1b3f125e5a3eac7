#include "arch/fields.h"

#include <cmath>

namespace puna::arch {
namespace {

constexpr int64_t kMaxInteger = int64_t{1} << 53;

// The value as JSON, one line, shortened. Bytes that are no UTF-8 are replaced.
std::string shown(const Json& value) {
  if (value.is_structured() && value.size() > 16)
    return fmt::format("{} of {} entries", value.is_array() ? "a list" : "an object", value.size());
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

}  // namespace

Fields::Fields(const Json& json, std::string_view where, std::string_view path)
    : json_(&json), where_(where), path_(path) {
  if (!json.is_object())
    fail(where, "{} is {}, expected a JSON object", path.empty() ? "the document" : path, json.type_name());
}

const Json* Fields::raw(std::string_view key) const {
  const auto it = json_->find(key);
  return it == json_->end() ? nullptr : &*it;
}

const Json* Fields::find(std::string_view key) const {
  const Json* value = raw(key);
  return value && !value->is_null() ? value : nullptr;
}

std::string Fields::name(std::string_view key) const {
  return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

const Json& Fields::require(std::string_view key) const {
  const Json* value = find(key);
  if (!value) fail(where_, "the key '{}' is missing; is this a Llama 4 model's file, and complete?", name(key));
  return *value;
}

void Fields::refuse(std::string_view key, std::string_view remedy) const {
  const Json* value = find(key);
  fail(where_, "'{}' is {}; {}", name(key), value ? shown(*value) : "absent", remedy);
}

int64_t Fields::to_integer(std::string_view key, const Json& value) const {
  if (value.is_boolean()) return value.get<bool>() ? 1 : 0;
  if (!value.is_number_integer()) refuse(key, "expected an integer");
  const bool fits = value.is_number_unsigned()
                        ? value.get<uint64_t>() <= static_cast<uint64_t>(kMaxInteger)
                        : value.get<int64_t>() >= -kMaxInteger && value.get<int64_t>() <= kMaxInteger;
  if (!fits) refuse(key, "expected an integer of at most 2^53");
  return value.get<int64_t>();
}

int64_t Fields::integer(std::string_view key) const {
  const Json& value = require(key);
  if (value.is_boolean()) refuse(key, "expected an integer");
  return to_integer(key, value);
}

int64_t Fields::integer(std::string_view key, int64_t fallback) const { return has(key) ? integer(key) : fallback; }

double Fields::number(std::string_view key) const {
  const Json& value = require(key);
  if (!value.is_number() || !std::isfinite(value.get<double>())) refuse(key, "expected a finite number");
  return value.get<double>();
}

double Fields::number(std::string_view key, double fallback) const { return has(key) ? number(key) : fallback; }

bool Fields::boolean(std::string_view key, bool fallback) const {
  const Json* value = find(key);
  if (!value) return fallback;
  if (!value->is_boolean() && !value->is_number_integer()) refuse(key, "expected true or false");
  return to_integer(key, *value) != 0;
}

std::string Fields::string(std::string_view key, std::string_view fallback) const {
  const Json* value = find(key);
  if (!value) return std::string(fallback);
  if (!value->is_string()) refuse(key, "expected a string");
  return value->get<std::string>();
}

std::optional<std::vector<int64_t>> Fields::integers(std::string_view key, size_t max_count) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_array()) refuse(key, "expected a list of integers");
  if (value->size() > max_count) refuse(key, fmt::format("expected at most {} entries", max_count));
  std::vector<int64_t> out;
  for (const Json& entry : *value) out.push_back(to_integer(key, entry));
  return out;
}

std::optional<std::vector<std::string>> Fields::strings(std::string_view key, size_t max_count) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_array()) refuse(key, "expected a list of strings");
  if (value->size() > max_count) refuse(key, fmt::format("expected at most {} entries", max_count));
  std::vector<std::string> out;
  for (const Json& entry : *value) {
    if (!entry.is_string()) refuse(key, "expected a list of strings");
    out.push_back(entry.get<std::string>());
  }
  return out;
}

std::optional<Fields> Fields::object(std::string_view key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  return Fields(*value, where_, name(key));
}

}  // namespace puna::arch
