#include "http/target.h"

#include <algorithm>
#include <cstddef>

namespace puna::http {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space) {
  std::string decoded;
  decoded.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (text.size() - i < 3) return std::nullopt;
      const int high = hex_digit(text[i + 1]), low = hex_digit(text[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    } else if (c == '+' && plus_is_space) {
      c = ' ';
    }
    if (c == '\0') return std::nullopt;
    decoded += c;
  }
  return decoded;
}

bool add_query(std::string_view text, std::map<std::string, std::string>& query) {
  while (!text.empty()) {
    const std::string_view pair = text.substr(0, text.find('&'));
    text.remove_prefix(std::min(pair.size() + 1, text.size()));
    if (pair.empty()) continue;
    const size_t equals = std::min(pair.find('='), pair.size());
    auto name = percent_decode(pair.substr(0, equals), true);
    auto value = percent_decode(pair.substr(std::min(equals + 1, pair.size())), true);
    if (!name || !value) return false;
    query.insert_or_assign(std::move(*name), std::move(*value));
  }
  return true;
}

// "http://host/path" to "/path"; names of schemes are small or capital letters.
std::string_view without_authority(std::string_view text) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    const bool same = text.size() > scheme.size() &&
                      std::equal(scheme.begin(), scheme.end(), text.begin(),
                                 [](char a, char b) { return a == (b >= 'A' && b <= 'Z' ? b - 'A' + 'a' : b); });
    if (!same) continue;
    text.remove_prefix(scheme.size());
    return text.substr(std::min(text.find_first_of("/?"), text.size()));
  }
  return text;
}

}  // namespace

std::optional<Target> parse_target(std::string_view text) {
  Target target;
  if (text == "*") {
    target.path = "*";
    return target;
  }
  const std::string_view origin = without_authority(text);
  const bool absolute = origin.size() != text.size();
  const size_t path_size = std::min(origin.find('?'), origin.size());
  auto path = percent_decode(origin.substr(0, path_size), false);
  if (path && path->empty() && absolute) path->push_back('/');
  if (!path || !path->starts_with('/')) return std::nullopt;
  target.path = std::move(*path);
  if (!add_query(origin.substr(std::min(path_size + 1, origin.size())), target.query)) return std::nullopt;
  return target;
}

}  // namespace puna::http
