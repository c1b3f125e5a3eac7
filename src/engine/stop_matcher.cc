#include "engine/stop_matcher.h"

#include <algorithm>

#include "base/error.h"

namespace puna::engine {

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_)
    if (stop.empty()) throw UsageError("--stop", "is an empty string; give at least one character");
}

std::string StopMatcher::push(std::string_view piece) {
  if (matched_ >= 0) return "";
  if (stops_.empty()) return std::string(piece);
  held_ += piece;
  size_t first = std::string::npos;
  for (size_t i = 0; i < stops_.size(); ++i) {
    const size_t at = held_.find(stops_[i]);
    if (at < first) first = at, matched_ = static_cast<int>(i);
  }
  const size_t safe = matched_ >= 0 ? first : held_.size() - held_length();
  std::string out = held_.substr(0, safe);
  held_.erase(0, matched_ >= 0 ? std::string::npos : safe);
  return out;
}

// Length of the longest end of held_ that begins some stop string.
size_t StopMatcher::held_length() const {
  size_t longest = 0;
  for (const std::string& stop : stops_)
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n)
      if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, n))) longest = n;
  return longest;
}

std::string StopMatcher::finish() { return std::exchange(held_, {}); }

}  // namespace puna::engine
