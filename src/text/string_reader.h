// One string of JSON or Python, byte by byte: quotes, triple quotes and escapes to UTF-8 text.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace puna::text {

/// What became of the byte that a reader was fed.
enum class ReadStep {
  kTaken,       // it belongs to the value, which goes on
  kDone,        // it was the last of the value
  kDoneBefore,  // the value had ended: the byte is not part of it
  kBad,         // no such value
};

/// Fed in place of a byte: the text has ended.
constexpr int kEndOfText = -1;

/// Python adds triple quotes, raw strings and tuples; JSON adds the escape `\/`. Else each reads what both write.
enum class LiteralStyle { kPython, kJson };

class StringReader {
 public:
  explicit StringReader(LiteralStyle style = LiteralStyle::kJson, bool newlines = true)
      : style_(style), newlines_(newlines) {}

  /// Begins behind the opening quote. In a raw string the backslash stands for itself.
  void open(char quote, bool raw = false);
  ReadStep feed(int byte);
  /// The text that has become known since the last call: whole characters, invalid bytes as U+FFFD.
  std::string take_text() { return std::exchange(text_, {}); }

 private:
  enum class State { kOpening, kTwoQuotes, kBody, kEscape, kDigits };

  ReadStep body(char c);
  ReadStep escape(char c);
  ReadStep digit(char c);
  void expect_digits(int count, int bits);
  ReadStep code(uint32_t code_point);
  void byte(char c);
  void finish_character();

  LiteralStyle style_;
  bool newlines_;  // a line break may stand in a string with single quotes
  State state_ = State::kOpening;
  char quote_ = '"';
  bool raw_ = false, triple_ = false;
  int num_quotes_ = 0;              // in a triple-quoted string: those that may be its end
  int digits_left_ = 0, bits_ = 0;  // of an escape by number; 3 bits: octal, which may be shorter
  uint32_t number_ = 0;
  uint32_t high_surrogate_ = 0;  // waits for its other half
  std::string utf8_;             // bytes of an unfinished character
  std::string text_;
};

/// Appends `text` as the inside of a JSON string.
void append_json_escaped(std::string& out, const std::string& text);

}  // namespace puna::text
