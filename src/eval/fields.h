// Typed access to the keys of one JSON object of a task; every failure names the place and the key.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace puna::eval {

class Fields {
 public:
  /// Throws Error when `object` is none. Both arguments must outlive this.
  Fields(const Json& object, const std::string& where);

  /// Throws Error for a key that is not among `known`, naming the nearest.
  void check_known(const std::vector<std::string>& known, std::string_view of_what) const;

  bool has(const char* key) const { return object_.contains(key); }
  /// The value of a key that must be there.
  const Json& at(const char* key) const;
  std::string string(const char* key) const;
  bool boolean(const char* key) const;
  double number(const char* key) const;  // finite
  int64_t integer(const char* key, int64_t least, int64_t most) const;
  /// A list of 1 to `most` strings.
  std::vector<std::string> strings(const char* key, size_t most) const;
  /// Whether the string at `key` is `second` instead of `first`; Error for any other.
  bool one_of(const char* key, const char* first, const char* second) const;

  const std::string& where() const { return where_; }

 private:
  const Json& object_;
  const std::string& where_;
};

}  // namespace puna::eval
