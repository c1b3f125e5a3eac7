#include "grammar/gbnf.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/suggest.h"
#include "io/text.h"
#include "text/utf8.h"

namespace puna::grammar {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 20;
constexpr int kMaxGroups = 200, kMaxRepetitions = 8;
constexpr uint32_t kMaxCount = 100'000;

bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

class Reader {
 public:
  Reader(std::string_view text, std::string_view where) : text_(text), where_(where), source_(std::string(where)) {}

  Source read() {
    skip_space();
    while (at_ < text_.size()) {
      const std::string name = rule_name();
      skip_space();
      if (!text_.substr(at_).starts_with("::=")) error("'::=' is missing after the rule name '{}'", name);
      at_ += 3;
      const RuleId rule = rule_of(name);
      if (defined_[rule]) error("the rule '{}' is defined twice", name);
      defined_[rule] = true;
      const ExprId body = alternatives(0);
      source_.define(rule, body);
    }
    finish();
    return std::move(source_);
  }

 private:
  template <typename... Args>
  [[noreturn]] void error(fmt::format_string<Args...> format, Args&&... args) const {
    const auto line =
        1 + std::count(text_.begin(), text_.begin() + static_cast<int64_t>(std::min(at_, text_.size())), '\n');
    fail(where_, "line {}: {}", line, fmt::format(format, std::forward<Args>(args)...));
  }

  void finish() {
    std::vector<std::string> names;
    for (RuleId rule = 0; rule < source_.num_rules(); ++rule)
      if (defined_[rule]) names.push_back(source_.name(rule));
    for (RuleId rule = 0; rule < source_.num_rules(); ++rule) {
      if (defined_[rule]) continue;
      const std::string nearest = nearest_name(source_.name(rule), names);
      fail(where_, "the rule '{}' is used but not defined{}", source_.name(rule),
           nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest));
    }
    const auto root = rules_.find("root");
    if (root == rules_.end()) fail(where_, "there is no rule 'root'; it is what a whole text matches: root ::= ...");
    source_.root = root->second;
  }

  void skip_space() {
    for (; at_ < text_.size(); ++at_) {
      if (text_[at_] == '#')
        while (at_ < text_.size() && text_[at_] != '\n') ++at_;
      if (at_ == text_.size() || std::string_view(" \t\r\n").find(text_[at_]) == std::string_view::npos) return;
    }
  }

  std::string rule_name() {
    const size_t begin = at_;
    while (at_ < text_.size() && is_name_char(text_[at_])) ++at_;
    if (begin == at_) error("a rule name is expected, not '{}'", io::printable(text_.substr(at_, 10)));
    return std::string(text_.substr(begin, at_ - begin));
  }

  RuleId rule_of(const std::string& name) {
    const auto [entry, is_new] = rules_.try_emplace(name, 0);
    if (is_new) {
      entry->second = source_.add_rule(name);
      defined_.push_back(false);
    }
    return entry->second;
  }

  // A new rule begins here: a name, then ::=.
  bool at_rule() {
    const size_t begin = at_;
    while (at_ < text_.size() && is_name_char(text_[at_])) ++at_;
    skip_space();
    const bool found = text_.substr(at_).starts_with("::=");
    at_ = begin;
    return found;
  }

  ExprId alternatives(int depth) {
    std::vector<ExprId> parts = {sequence(depth)};
    while (at_ < text_.size() && text_[at_] == '|') {
      ++at_;
      parts.push_back(sequence(depth));
    }
    return source_.choice(std::move(parts));
  }

  ExprId sequence(int depth) {
    std::vector<ExprId> parts;
    for (;;) {
      skip_space();
      if (at_ == text_.size() || text_[at_] == '|' || text_[at_] == ')') break;
      if (is_name_char(text_[at_]) && at_rule()) break;
      const ExprId part = primary(depth);
      parts.push_back(repeated(part));
    }
    return source_.sequence(std::move(parts));
  }

  ExprId primary(int depth) {
    const char c = text_[at_];
    if (c == '"') return literal();
    if (c == '[') return char_class();
    if (c == '.') {
      ++at_;
      return source_.chars(CharSet().complement());
    }
    if (c == '(') {
      if (depth == kMaxGroups) error("groups are nested deeper than {}", kMaxGroups);
      ++at_;
      const ExprId inner = alternatives(depth + 1);
      if (at_ == text_.size() || text_[at_] != ')') error("')' is missing");
      ++at_;
      return inner;
    }
    if (is_name_char(c)) return source_.call(rule_of(rule_name()));
    error("'{}' is not part of the notation; it has \"text\", [classes], (groups), names, | * + ? {{m,n}} . and #",
          io::printable(text_.substr(at_, 1)));
  }

  ExprId repeated(ExprId part) {
    for (int count = 0;; ++count) {
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      if (c != '*' && c != '+' && c != '?' && c != '{') return part;
      if (count == kMaxRepetitions) error("more than {} repetitions follow each other", kMaxRepetitions);
      ++at_;
      if (c == '{') {
        const auto [least, most] = counts();
        part = source_.repeat(part, least, most);
      } else {
        part = source_.repeat(part, c == '+' ? 1 : 0, c == '?' ? 1 : kNoLimit);
      }
    }
  }

  std::pair<uint32_t, uint32_t> counts() {
    skip_space();
    const uint32_t least = number();
    skip_space();
    uint32_t most = least;
    if (at_ < text_.size() && text_[at_] == ',') {
      ++at_;
      skip_space();
      most = at_ < text_.size() && text_[at_] == '}' ? kNoLimit : number();
      skip_space();
    }
    if (at_ == text_.size() || text_[at_] != '}') error("'}}' is missing after a count");
    ++at_;
    if (most < least) error("the counts {{{},{}}} are in the wrong order", least, most);
    return {least, most};
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

  ExprId literal() {
    std::string bytes;
    ++at_;
    while (at_ < text_.size() && text_[at_] != '"') text::append_utf8(bytes, character());
    if (at_ == text_.size()) error("'\"' is missing at the end of a text");
    ++at_;
    return source_.bytes(bytes);
  }

  ExprId char_class() {
    ++at_;
    const bool negated = at_ < text_.size() && text_[at_] == '^';
    at_ += negated;
    CharSet set;
    while (at_ < text_.size() && text_[at_] != ']') {
      const uint32_t first = character();
      uint32_t last = first;
      if (at_ + 1 < text_.size() && text_[at_] == '-' && text_[at_ + 1] != ']') {
        ++at_;
        last = character();
      }
      if (last < first) error("a range in [ ] is in the wrong order: U+{:04X} to U+{:04X}", first, last);
      set.add(first, last);
    }
    if (at_ == text_.size()) error("']' is missing at the end of a class");
    ++at_;
    return source_.chars(negated ? set.complement() : std::move(set));
  }

  uint32_t character() {
    if (text_[at_] != '\\') {
      const text::Utf8Char c = text::read_utf8(text_.substr(at_));
      if (!c.valid) error("the text is not valid UTF-8");
      at_ += static_cast<size_t>(c.length);
      return c.code_point;
    }
    ++at_;
    const char c = at_ < text_.size() ? text_[at_++] : '\0';
    switch (c) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case 'x':
        return hex(2);
      case 'u':
        return hex(4);
      case 'U':
        return hex(8);
      case '\\':
      case '"':
      case '[':
      case ']':
      case '-':
      case '^':
        return static_cast<uint8_t>(c);
      default:
        error("unknown escape '\\{}'; there are \\n \\r \\t \\\\ \\\" \\[ \\] \\- \\^ \\xHH \\uHHHH \\UHHHHHHHH",
              io::printable({&c, 1}));
    }
  }

  uint32_t hex(int digits) {
    uint32_t value = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) error("an escape needs {} hexadecimal digits", digits);
      value = value * 16 + static_cast<uint32_t>(digit);
    }
    if (value > kLastCodePoint || (value >= 0xD800 && value <= 0xDFFF)) error("U+{:04X} is no character", value);
    return value;
  }

  std::string_view text_, where_;
  Source source_;
  size_t at_ = 0;
  std::map<std::string, RuleId, std::less<>> rules_;
  std::vector<bool> defined_;
};

}  // namespace

Source read_gbnf(std::string_view text, std::string_view where) {
  if (text.size() > kMaxBytes) fail(where, "the grammar has {} bytes, more than {}", text.size(), kMaxBytes);
  return Reader(text, where).read();
}

}  // namespace puna::grammar
