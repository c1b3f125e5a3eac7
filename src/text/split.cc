#include "text/split.h"

#include <cstdint>

#include "text/unicode_classes.h"

namespace puna::text {

// Below, P, A and B are the pattern's three sets around a word:
//   P = [^\r\n\p{L}\p{N}], A = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}], B = [\p{Ll}\p{Lm}\p{Lo}\p{M}]
const std::string_view kSplitPattern =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

namespace {

using Byte = unsigned char;

/// Walks over valid UTF-8 and tells the class of the character ahead.
class Cursor {
 public:
  Cursor(const Byte* at, const Byte* end, const CharClass* classes) : at_(at), end_(end), classes_(classes) { read(); }

  const Byte* at() const { return at_; }
  bool done() const { return at_ == end_; }
  CharClass ahead() const { return ahead_; }  // kOther at the end
  void next() {
    at_ += length_;
    read();
  }

 private:
  void read() {
    length_ = 0, ahead_ = CharClass::kOther;
    if (at_ == end_) return;
    uint32_t code = at_[0];
    length_ = 1;
    if (code >= 0xF0) {
      code = (code & 7u) << 18 | (at_[1] & 0x3Fu) << 12 | (at_[2] & 0x3Fu) << 6 | (at_[3] & 0x3Fu);
      length_ = 4;
    } else if (code >= 0xE0) {
      code = (code & 15u) << 12 | (at_[1] & 0x3Fu) << 6 | (at_[2] & 0x3Fu);
      length_ = 3;
    } else if (code >= 0x80) {
      code = (code & 31u) << 6 | (at_[1] & 0x3Fu);
      length_ = 2;
    }
    ahead_ = classes_[code];
  }

  const Byte *at_, *end_;
  const CharClass* classes_;
  int length_ = 0;
  CharClass ahead_ = CharClass::kOther;
};

bool is_a_and_b(CharClass c) { return c == CharClass::kLetter || c == CharClass::kMark; }
bool is_symbol(CharClass c) { return c == CharClass::kOther || c == CharClass::kMark; }
bool is_space(CharClass c) { return c >= CharClass::kSpace; }

/// (?i:'s|'t|'re|'ve|'m|'ll|'d)? at `at`. Without regard to case, s is also the long s, U+017F.
const Byte* contraction_end(const Byte* at, const Byte* end) {
  if (end - at < 2 || *at != '\'') return at;
  const Byte first = at[1] | 0x20;
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return at + 2;
  if (end - at < 3) return at;
  const Byte second = at[2] | 0x20;
  if ((first == 'r' || first == 'v') && second == 'e') return at + 3;
  if (first == 'l' && second == 'l') return at + 3;
  if (at[1] == 0xC5 && at[2] == 0xBF) return at + 3;
  return at;
}

/// A*B+ from the cursor, its backtracking done in one pass; A+ when there is no B and `upper_alone` allows it.
/// Null when neither matches.
const Byte* word_end(Cursor cursor, const Byte* end, bool upper_alone) {
  const Byte* start = cursor.at();
  const Byte* last_b = nullptr;  // end of the last character of the A run that is in B too
  while (!cursor.done() && (cursor.ahead() == CharClass::kUpper || is_a_and_b(cursor.ahead()))) {
    const bool in_b = is_a_and_b(cursor.ahead());
    cursor.next();
    if (in_b) last_b = cursor.at();
  }
  if (cursor.ahead() == CharClass::kLower) {
    while (cursor.ahead() == CharClass::kLower || is_a_and_b(cursor.ahead())) cursor.next();
    return contraction_end(cursor.at(), end);
  }
  if (last_b) return contraction_end(last_b, end);
  return upper_alone && cursor.at() != start ? contraction_end(cursor.at(), end) : nullptr;
}

/// [^\s\p{L}\p{N}]+[\r\n/]* with the cursor before its first character.
const Byte* symbols_end(Cursor cursor, const Byte* end) {
  while (!cursor.done() && is_symbol(cursor.ahead())) cursor.next();
  const Byte* at = cursor.at();
  while (at != end && (*at == '\r' || *at == '\n' || *at == '/')) ++at;
  return at;
}

/// \s*[\r\n]+ | \s+(?!\S) | \s+ with the cursor before the first white space.
const Byte* space_end(Cursor cursor) {
  const Byte* start = cursor.at();
  const Byte* before_last = start;
  const Byte* last_newline = nullptr;
  while (is_space(cursor.ahead())) {
    const bool newline = cursor.ahead() == CharClass::kNewline;
    before_last = cursor.at();
    cursor.next();
    if (newline) last_newline = cursor.at();
  }
  if (last_newline) return last_newline;
  return cursor.done() || before_last == start ? cursor.at() : before_last;
}

const Byte* piece_end(const Byte* start, const Byte* end) {
  Cursor cursor(start, end, char_classes());
  Cursor second = cursor;
  second.next();
  switch (cursor.ahead()) {
    case CharClass::kUpper:
    case CharClass::kLower:
    case CharClass::kLetter:
      return word_end(cursor, end, true);
    case CharClass::kNumber:
      for (int i = 0; i < 3 && cursor.ahead() == CharClass::kNumber; ++i) cursor.next();
      return cursor.at();
    case CharClass::kMark:  // as P before a word; else it is a word of its own, for it is in A and B
      if (const Byte* word = word_end(second, end, false)) return word;
      return contraction_end(second.at(), end);
    case CharClass::kOther:
      if (const Byte* word = word_end(second, end, true)) return word;
      return symbols_end(cursor, end);
    case CharClass::kSpace:
      if (const Byte* word = word_end(second, end, true)) return word;
      if (*start == ' ' && !second.done() && is_symbol(second.ahead())) return symbols_end(second, end);
      return space_end(cursor);
    case CharClass::kNewline:
      return space_end(cursor);
  }
  return end;
}

}  // namespace

size_t next_piece(std::string_view text) {
  const Byte* start = reinterpret_cast<const Byte*>(text.data());
  return static_cast<size_t>(piece_end(start, start + text.size()) - start);
}

}  // namespace puna::text
