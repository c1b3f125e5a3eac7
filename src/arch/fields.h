// Typed reads of one JSON object from outside; every refusal names the key, the value and what was expected.
// Internal to src/arch.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace puna::arch {

class Fields {
 public:
  /// `path` names the object in errors: "" or "text_config". Throws Error when `json` is no object.
  Fields(const Json& json, std::string_view where, std::string_view path = "");

  /// The key is there and not null; null counts as absent everywhere.
  bool has(std::string_view key) const { return find(key) != nullptr; }

  /// |value| up to 2^53; anything else, also a number with a fraction, is an Error. Without a fallback the key must
  /// exist.
  int64_t integer(std::string_view key) const;
  int64_t integer(std::string_view key, int64_t fallback) const;
  /// A finite number.
  double number(std::string_view key) const;
  double number(std::string_view key, double fallback) const;
  /// true, false, or an integer: 0 is false.
  bool boolean(std::string_view key, bool fallback) const;
  std::string string(std::string_view key, std::string_view fallback) const;
  /// A list of integers (or booleans, as 0 and 1); nullopt when absent. At most `max_count` elements.
  std::optional<std::vector<int64_t>> integers(std::string_view key, size_t max_count) const;
  std::optional<std::vector<std::string>> strings(std::string_view key, size_t max_count) const;
  std::optional<Fields> object(std::string_view key) const;
  const Json* find(std::string_view key) const;
  /// As find(), but an explicit null is returned.
  const Json* raw(std::string_view key) const;

  /// Throws Error: "key 'path.key' is VALUE; REMEDY".
  [[noreturn]] void refuse(std::string_view key, std::string_view remedy) const;
  const std::string& where() const { return where_; }

 private:
  std::string name(std::string_view key) const;
  const Json& require(std::string_view key) const;
  int64_t to_integer(std::string_view key, const Json& value) const;

  const Json* json_;
  std::string where_;
  std::string path_;
};

}  // namespace puna::arch
