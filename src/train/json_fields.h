// Looking up the fields of one object of a checkpoint's manifest. Internal to src/train.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace puna::train::internal {

/// Each look-up throws Error(`where`), naming the object and the key, when it is absent or of another type.
class Fields {
 public:
  /// `name` names the object in errors ("the manifest"). Both must outlive this.
  Fields(const Json& object, std::string name, std::string_view where);

  const Json& at(const char* key) const;
  const std::string& text(const char* key) const;
  const Json& object(const char* key) const;
  const Json& array(const char* key) const;
  /// Whole numbers of 0 to 2^63 - 1.
  int64_t count(const char* key) const { return count(at(key), key); }
  std::vector<int64_t> counts(const char* key) const;
  /// Finite numbers.
  std::vector<double> numbers(const char* key) const;

 private:
  int64_t count(const Json& value, const char* key) const;

  const Json& object_;
  std::string name_;
  std::string_view where_;
};

}  // namespace puna::train::internal
