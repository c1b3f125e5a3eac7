// Regular expressions from configs, as Python's re.match takes them, with a bound on the work of a match.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace puna::checkpoint {

class Regex {
 public:
  /// Throws Error(where) when the pattern is malformed or over 4 KiB.
  Regex(std::string_view pattern, std::string_view where);

  /// Whether a match begins at the start of `text`. Throws Error when that takes too long.
  bool matches(std::string_view text) const;

 private:
  std::string pattern_, where_;
  std::shared_ptr<void> code_;  // compiled PCRE2 code
};

}  // namespace puna::checkpoint
