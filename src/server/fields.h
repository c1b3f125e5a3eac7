// The fields of a JSON request, each read once with its type and range; what nobody read is known afterwards.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/json.h"

namespace puna::server {

class Fields {
 public:
  /// `path` is how errors name the object, "" for the request itself. Throws ApiError when it is no object.
  explicit Fields(const OrderedJson& object, std::string path = {});

  // All: absent and null alike are nullopt (nullptr); ApiError (400, naming the field) for another type or out of
  // range.
  const OrderedJson* find(const std::string& name);
  std::optional<double> number(const std::string& name, double least, double most);
  std::optional<int64_t> integer(const std::string& name, int64_t least, int64_t most);
  std::optional<bool> boolean(const std::string& name);
  std::optional<std::string> text(const std::string& name);
  /// One string or an array of them.
  std::vector<std::string> texts(const std::string& name);

  /// Throws ApiError when it is absent.
  const OrderedJson& required(const std::string& name);
  /// Reads as text and throws ApiError when it is absent.
  std::string required_text(const std::string& name);
  /// Fields that are accepted and mean nothing here.
  void ignore(std::initializer_list<const char*> names);

  std::string path_of(const std::string& name) const;
  /// Names that nobody asked for.
  std::vector<std::string> unknown() const;

 private:
  const OrderedJson& object_;
  std::string path_;
  std::set<std::string> known_;
};

/// "'temperature' is "hot"; expected a number from 0 to 2"
[[noreturn]] void wrong_field(const std::string& path, const OrderedJson& value, const std::string& expected);

}  // namespace puna::server
