#include "eval/fields.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/suggest.h"
#include "io/text.h"

namespace puna::eval {

Fields::Fields(const Json& object, const std::string& where) : object_(object), where_(where) {
  if (!object.is_object()) fail(where, "is {}; expected an object", object.type_name());
}

void Fields::check_known(const std::vector<std::string>& known, std::string_view of_what) const {
  for (const auto& [key, value] : object_.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::string nearest = nearest_name(key, known);
    fail(where_, "unknown key '{}' of {}{}", io::printable(key), of_what,
         nearest.empty() ? "; docs/EVAL.md lists the keys" : fmt::format("; did you mean '{}'?", nearest));
  }
}

const Json& Fields::at(const char* key) const {
  const auto found = object_.find(key);
  if (found == object_.end()) fail(where_, "the key '{}' is missing", key);
  return *found;
}

std::string Fields::string(const char* key) const {
  const Json& value = at(key);
  if (!value.is_string()) fail(where_, "'{}' is {}; expected a string", key, value.type_name());
  return value.get<std::string>();
}

bool Fields::boolean(const char* key) const {
  const Json& value = at(key);
  if (!value.is_boolean()) fail(where_, "'{}' is {}; expected true or false", key, value.type_name());
  return value.get<bool>();
}

double Fields::number(const char* key) const {
  const Json& value = at(key);
  if (!value.is_number() || !std::isfinite(value.get<double>()))
    fail(where_, "'{}' is {}; expected a number", key, value.type_name());
  return value.get<double>();
}

int64_t Fields::integer(const char* key, int64_t least, int64_t most) const {
  const Json& value = at(key);
  const bool fits = value.is_number_unsigned() ? value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX) : true;
  if (!value.is_number_integer() || !fits || value.get<int64_t>() < least || value.get<int64_t>() > most)
    fail(where_, "'{}' is {}; expected a whole number from {} to {}", key, io::printable(value.dump()), least, most);
  return value.get<int64_t>();
}

std::vector<std::string> Fields::strings(const char* key, size_t most) const {
  const Json& list = at(key);
  if (!list.is_array() || list.empty() || list.size() > most)
    fail(where_, "'{}' must be a list of 1 to {} strings", key, most);
  std::vector<std::string> out;
  for (const Json& entry : list) {
    if (!entry.is_string()) fail(where_, "'{}' holds {}; expected strings", key, entry.type_name());
    out.push_back(entry.get<std::string>());
  }
  return out;
}

bool Fields::one_of(const char* key, const char* first, const char* second) const {
  const std::string value = string(key);
  if (value != first && value != second)
    fail(where_, "'{}' is '{}'; expected '{}' or '{}'", key, io::printable(value), first, second);
  return value == second;
}

}  // namespace puna::eval
