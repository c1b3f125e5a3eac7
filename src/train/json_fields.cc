#include "train/json_fields.h"

#include <cmath>
#include <limits>
#include <utility>

#include "base/error.h"

namespace puna::train::internal {

Fields::Fields(const Json& object, std::string name, std::string_view where)
    : object_(object), name_(std::move(name)), where_(where) {
  if (!object.is_object()) fail(where_, "{} is no JSON object", name_);
}

const Json& Fields::at(const char* key) const {
  const auto found = object_.find(key);
  if (found == object_.end()) fail(where_, "{} lacks '{}'", name_, key);
  return *found;
}

const std::string& Fields::text(const char* key) const {
  const Json& value = at(key);
  if (!value.is_string()) fail(where_, "'{}' of {} is no string", key, name_);
  return value.get_ref<const std::string&>();
}

const Json& Fields::object(const char* key) const {
  const Json& value = at(key);
  if (!value.is_object()) fail(where_, "'{}' of {} is no object", key, name_);
  return value;
}

const Json& Fields::array(const char* key) const {
  const Json& value = at(key);
  if (!value.is_array()) fail(where_, "'{}' of {} is no array", key, name_);
  return value;
}

std::vector<int64_t> Fields::counts(const char* key) const {
  std::vector<int64_t> numbers;
  for (const Json& value : array(key)) numbers.push_back(count(value, key));
  return numbers;
}

std::vector<double> Fields::numbers(const char* key) const {
  std::vector<double> numbers;
  for (const Json& value : array(key)) {
    if (!value.is_number() || !std::isfinite(value.get<double>()))
      fail(where_, "'{}' of {} has an entry that is no finite number", key, name_);
    numbers.push_back(value.get<double>());
  }
  return numbers;
}

int64_t Fields::count(const Json& value, const char* key) const {
  constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
  if (!value.is_number_unsigned() || value.get<uint64_t>() > kMax)
    fail(where_, "'{}' of {} is no whole number of 0 to 2^63 - 1", key, name_);
  return static_cast<int64_t>(value.get<uint64_t>());
}

}  // namespace puna::train::internal
