// What a request line asks for: "/v1/models?limit=20".
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace puna::http {

struct Target {
  std::string path;                          // percent-decoded
  std::map<std::string, std::string> query;  // percent-decoded, '+' as a space; the last of equal names
};

/// Takes "/path?query", "*" and "http://host/path?query" (RFC 9112, 3.2). Nothing when it is none of these, or has a
/// bad percent-encoding or a zero byte.
std::optional<Target> parse_target(std::string_view text);

}  // namespace puna::http
