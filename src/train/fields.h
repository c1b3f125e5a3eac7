// Reading and printing config structs through one visitor each: `template <class V> void visit(V& v, T& config)` calls
// v("key", field, "help") for every field. Internal to src/train.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/suggest.h"

namespace puna::train {

/// Sets the fields that an object has; others keep their defaults. Throws Error for a key that no field has, naming the
/// nearest, and for a value of another type.
class FieldReader {
 public:
  /// `path` names the object in errors ("optimizer", "stage.extend").
  FieldReader(const Json& object, std::string_view where, std::string_view path)
      : object_(object), where_(where), path_(path) {
    if (!object.is_object()) fail(where_, "'{}' must be a table", path_);
  }

  template <typename T>
  void operator()(const char* key, T& value, const char* /*help*/) {
    known_.emplace_back(key);
    const auto found = object_.find(key);
    if (found == object_.end()) return;
    const Json& json = *found;
    if constexpr (std::is_same_v<T, Json>) {
      value = json;
    } else if constexpr (std::is_same_v<T, bool>) {
      require(json.is_boolean(), key, "true or false");
      value = json.get<bool>();
    } else if constexpr (std::is_integral_v<T>) {
      require(json.is_number_integer() && (json.is_number_unsigned() || std::is_signed_v<T>), key,
              std::is_signed_v<T> ? "a whole number" : "a whole number of 0 or more");
      value = json.get<T>();
      require(Json(value) == json, key, "a smaller number");
    } else if constexpr (std::is_floating_point_v<T>) {
      require(json.is_number(), key, "a number");
      value = json.get<T>();
    } else if constexpr (std::is_same_v<T, std::string>) {
      require(json.is_string(), key, "a string");
      value = json.get<std::string>();
    } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
      require(json.is_array(), key, "a list of strings");
      value.clear();
      for (const Json& item : json) {
        require(item.is_string(), key, "a list of strings");
        value.push_back(item.get<std::string>());
      }
    } else {
      static_assert(std::is_void_v<T>, "no reader for this field type");
    }
  }

  void finish() const {
    for (const auto& [key, value] : object_.items()) {
      bool found = false;
      for (const std::string& known : known_) found = found || known == key;
      if (found) continue;
      const std::string nearest = nearest_name(key, known_);
      fail(where_, "unknown key '{}'{}", full_name(key),
           nearest.empty() ? fmt::format("; known here: {}", fmt::join(known_, ", "))
                           : fmt::format("; did you mean '{}'?", nearest));
    }
  }

  [[noreturn]] void refuse(std::string_view key, std::string_view wanted) const {
    fail(where_, "'{}' is {}; it must be {}", full_name(key), object_.at(std::string(key)).dump(), wanted);
  }

 private:
  void require(bool condition, std::string_view key, std::string_view wanted) const {
    if (!condition) refuse(key, wanted);
  }
  std::string full_name(std::string_view key) const {
    return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
  }

  const Json& object_;
  std::string where_, path_;
  std::vector<std::string> known_;
};

/// The struct as an object, every field with its value.
class FieldWriter {
 public:
  template <typename T>
  void operator()(const char* key, const T& value, const char* /*help*/) {
    json_[key] = value;
  }
  Json take() { return std::move(json_); }

 private:
  Json json_ = Json::object();
};

template <typename T>
void read_fields(T& config, const Json& object, std::string_view where, std::string_view path) {
  FieldReader reader(object, where, path);
  visit(reader, config);
  reader.finish();
}

template <typename T>
Json write_fields(const T& config) {
  FieldWriter writer;
  visit(writer, const_cast<T&>(config));  // a writer leaves the fields as they are
  return writer.take();
}

}  // namespace puna::train
