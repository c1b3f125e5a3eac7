// Stop strings in a stream of text: nothing that may still become a stop string is let out.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace puna::engine {

class StopMatcher {
 public:
  /// Empty strings are refused (UsageError): they would stop everything.
  explicit StopMatcher(std::vector<std::string> stops);

  /// The text that is safe to show after this piece. Once a stop string is complete, what precedes its first occurrence
  /// is returned, matched() is its index, and nothing more comes out.
  std::string push(std::string_view piece);
  /// What was held back, at the end of the text.
  std::string finish();

  /// Index of the stop string found, or -1.
  int matched() const { return matched_; }
  const std::string& stop(int index) const { return stops_[static_cast<size_t>(index)]; }

 private:
  size_t held_length() const;

  std::vector<std::string> stops_;
  std::string held_;  // shorter than the longest stop string between pushes
  int matched_ = -1;
};

}  // namespace puna::engine
