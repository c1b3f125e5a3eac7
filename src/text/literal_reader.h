// One value of JSON or Python, byte by byte, written as JSON: what stands in the arguments of a tool call.
#pragma once

#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "text/string_reader.h"

namespace puna::text {

/// Strings, numbers, constants, lists, dicts and tuples of either language, trailing commas and raw line breaks in
/// strings too. Bad are names, a key twice in one dict, more than 10,000 keys, infinite numbers, and nesting beyond
/// `max_depth`. What is written has no spaces between its parts.
class LiteralReader {
 public:
  /// Appends to `out`, which must live as long.
  LiteralReader(std::string& out, LiteralStyle style, size_t max_depth, bool newlines = true)
      : out_(out), style_(style), max_depth_(max_depth), string_(style, newlines) {}

  /// Begins another value.
  void reset();
  /// A number or constant that the end of the text follows is bad: it may have been cut.
  ReadStep feed(int byte);

  /// A string has begun, or a number, constant or container is whole.
  bool has_begun() const { return has_begun_; }
  /// Bytes of `out` that no further byte changes.
  size_t settled() const { return held_frame_ < frames_.size() ? frames_[held_frame_].start : out_.size(); }

 private:
  enum class Expect { kFirst, kItem, kColon, kValue, kNext };
  struct Frame {
    char kind;  // its opening bracket
    Expect expect = Expect::kFirst;
    size_t start = 0;  // where a tuple's bracket goes once it is known to be one
    bool is_tuple = false;
    std::unordered_set<std::string> keys{};
  };
  enum class Leaf { kNone, kString, kToken };

  ReadStep structure(int byte);
  ReadStep begin_item(char c);
  void separate();
  void begin_string();
  ReadStep open(char bracket);
  ReadStep close();
  ReadStep comma();
  ReadStep finish_item();
  bool is_key() const {
    return !frames_.empty() && frames_.back().kind == '{' && frames_.back().expect <= Expect::kItem;
  }
  ReadStep feed_string(int byte);
  ReadStep feed_token(int byte);

  std::string& out_;
  LiteralStyle style_;
  size_t max_depth_;
  StringReader string_;
  Leaf leaf_ = Leaf::kNone;
  std::string token_, key_;
  std::vector<Frame> frames_;
  bool has_begun_ = false;
  size_t held_frame_ = std::string::npos;  // the outermost parenthesis that may be no tuple
};

/// A number as Python writes it, as JSON: "1_000" -> "1000", ".5" -> "0.5", "0x1f" -> "31". Empty when it is none.
std::string json_number(std::string_view python);

}  // namespace puna::text
