#include "grammar/pattern.h"

#include <algorithm>

#include "base/error.h"
#include "io/text.h"
#include "text/utf8.h"

namespace puna::grammar {
namespace {

constexpr int kMaxGroups = 100;
constexpr uint32_t kMaxCount = 10'000;

CharSet named_class(char name) {
  switch (name) {
    case 'd':
      return {{'0', '9'}};
    case 'w':
      return {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    case 's':
      return {{'\t', '\r'},     {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
              {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
    default:  // D, W, S
      return named_class(static_cast<char>(name - 'A' + 'a')).complement();
  }
}

class Reader {
 public:
  Reader(Source& source, JsonText& json, std::string_view pattern, std::string_view where)
      : source_(source), json_(json), text_(pattern), where_(where) {}

  ExprId read() {
    std::vector<ExprId> parts;
    do parts.push_back(whole_alternative());
    while (take('|'));
    if (at_ < text_.size()) error("')' closes nothing");
    return source_.choice(std::move(parts));
  }

 private:
  template <typename... Args>
  [[noreturn]] void error(fmt::format_string<Args...> format, Args&&... args) const {
    fail(where_, "the pattern '{}' at byte {}: {}", io::printable(text_), at_,
         fmt::format(format, std::forward<Args>(args)...));
  }

  bool take(char c) {
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  ExprId anything() { return source_.repeat(json_.character(CharSet().complement()), 0, kNoLimit); }

  // Of the outermost alternatives each has anchors of its own.
  ExprId whole_alternative() {
    std::vector<ExprId> parts;
    if (!take('^')) parts.push_back(anything());
    parts.push_back(sequence(0));
    if (!take('$')) parts.push_back(anything());
    if (at_ < text_.size() && text_[at_] != '|' && text_[at_] != ')') error("'$' is supported at the end alone");
    return source_.sequence(std::move(parts));
  }

  ExprId alternatives(int depth) {
    std::vector<ExprId> parts;
    do parts.push_back(sequence(depth));
    while (take('|'));
    return source_.choice(std::move(parts));
  }

  ExprId sequence(int depth) {
    std::vector<ExprId> parts;
    while (at_ < text_.size() && text_[at_] != '|' && text_[at_] != ')' && text_[at_] != '$') {
      const ExprId part = atom(depth);
      parts.push_back(repeated(part));
    }
    if (depth > 0 && at_ < text_.size() && text_[at_] == '$') error("'$' is supported at the end of the pattern alone");
    return source_.sequence(std::move(parts));
  }

  ExprId atom(int depth) {
    const char c = text_[at_];
    if (c == '(') return group(depth);
    if (c == '[') return json_.character(char_class());
    if (c == '^') error("'^' is supported at the beginning of the pattern alone");
    if (c == '*' || c == '+' || c == '?' || c == '{') error("'{}' has nothing to repeat", c);
    if (c == '.') {
      ++at_;
      return json_.character(CharSet{{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}.complement());
    }
    return json_.character(character_or_class());
  }

  ExprId group(int depth) {
    if (depth == kMaxGroups) error("groups are nested deeper than {}", kMaxGroups);
    ++at_;
    if (take('?') && !take(':')) error("look-around and named groups are not supported; use ( ) or (?: )");
    const ExprId inner = alternatives(depth + 1);
    if (!take(')')) error("')' is missing");
    return inner;
  }

  ExprId repeated(ExprId part) {
    if (at_ == text_.size()) return part;
    uint32_t least = 0, most = kNoLimit;
    if (take('+')) {
      least = 1;
    } else if (take('?')) {
      most = 1;
    } else if (take('{')) {
      least = most = number();
      if (take(',')) most = at_ < text_.size() && text_[at_] == '}' ? kNoLimit : number();
      if (!take('}')) error("'}}' is missing after a count");
      if (most < least) error("the counts {{{},{}}} are in the wrong order", least, most);
    } else if (!take('*')) {
      return part;
    }
    take('?');  // lazy or not, the same strings match
    if (at_ < text_.size() && (text_[at_] == '*' || text_[at_] == '+' || text_[at_] == '?' || text_[at_] == '{'))
      error("two repetitions follow each other; put the first in a group");
    return source_.repeat(part, least, most);
  }

  uint32_t number() {
    uint32_t value = 0;
    const size_t begin = at_;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      value = value * 10 + static_cast<uint32_t>(text_[at_] - '0');
      if (value > kMaxCount) error("a count is above {}", kMaxCount);
    }
    if (begin == at_) error("a count is expected within {{ }}");
    return value;
  }

  CharSet char_class() {
    ++at_;
    const bool negated = take('^');
    CharSet set;
    while (at_ < text_.size() && text_[at_] != ']') {
      const CharSet first = character_or_class(true);
      if (at_ + 1 < text_.size() && text_[at_] == '-' && text_[at_ + 1] != ']') {
        ++at_;
        const CharSet last = character_or_class(true);
        const uint32_t a = first.empty() ? 1 : first.ranges()[0].first, b = last.empty() ? 0 : last.ranges()[0].first;
        if (a > b || first.ranges()[0].second != a || last.ranges()[0].second != b)
          error("a range in [ ] is in the wrong order, or is not between two characters");
        set.add(a, b);
      } else {
        set.add(first);
      }
    }
    if (!take(']')) error("']' is missing at the end of a class");
    return negated ? set.complement() : set;
  }

  CharSet character_or_class(bool in_class = false) {
    if (text_[at_] != '\\') {
      const text::Utf8Char c = text::read_utf8(text_.substr(at_));
      if (!c.valid) error("the pattern is not valid UTF-8");
      at_ += static_cast<size_t>(c.length);
      return {{c.code_point, c.code_point}};
    }
    ++at_;
    if (at_ == text_.size()) error("a character is missing after '\\'");
    const char c = text_[at_++];
    if (std::string_view("dDwWsS").find(c) != std::string_view::npos) return named_class(c);
    const auto one = [](uint32_t code) { return CharSet{{code, code}}; };
    if (c == 'b' && in_class) return one('\b');
    if (const size_t i = std::string_view("nrtfv0").find(c); i != std::string_view::npos)
      return one(static_cast<uint8_t>("\n\r\t\f\v\0"[i]));
    if (c == 'x') return one(hex(2));
    if (c == 'u') return one(hex(4));
    const bool is_word = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c & 0x80) != 0;
    if (is_word) {
      --at_;
      error(
          "'\\{}' is not supported; there are \\d \\w \\s \\D \\W \\S \\n \\r \\t \\f \\v \\xHH \\uHHHH and escaped "
          "signs",
          io::printable({&c, 1}));
    }
    return one(static_cast<uint8_t>(c));
  }

  uint32_t hex(size_t digits) {
    uint32_t value = 0;
    for (size_t i = 0; i < digits; ++i, ++at_) {
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      const size_t digit = std::string_view("0123456789abcdefABCDEF").find(c);
      if (c == '\0' || digit == std::string_view::npos) error("an escape needs {} hexadecimal digits", digits);
      value = value * 16 + static_cast<uint32_t>(digit < 16 ? digit : digit - 6);
    }
    if (value >= 0xD800 && value <= 0xDFFF)
      error("\\u{:04x} is half of a surrogate pair; write the character itself", value);
    return value;
  }

  Source& source_;
  JsonText& json_;
  std::string_view text_, where_;
  size_t at_ = 0;
};

}  // namespace

ExprId pattern_expr(Source& source, JsonText& json, std::string_view pattern, std::string_view where) {
  return Reader(source, json, pattern, where).read();
}

}  // namespace puna::grammar
