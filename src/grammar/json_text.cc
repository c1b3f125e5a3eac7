#include "grammar/json_text.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "grammar/integer_range.h"
#include "text/utf8.h"

namespace puna::grammar {
namespace {

constexpr uint32_t kMaxIntegerDigits = 18, kMaxFractionDigits = 16, kMaxIndent = 20;

// Characters that a JSON string may not hold as they are.
const CharSet& escaped_characters() {
  static const CharSet set = {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};
  return set;
}

// A tree of code points, of names that a key must not be.
struct NameTree {
  std::map<uint32_t, NameTree> next;
  bool ends = false;
};

ExprId other_than(Source& source, const NameTree& tree, ExprId any) {
  CharSet rest = escaped_characters();
  std::vector<ExprId> choices;
  for (const auto& [c, child] : tree.next) {
    if (!rest.contains(c)) rest.add(c, c);
    choices.push_back(source.sequence({source.chars({{c, c}}), other_than(source, child, any)}));
  }
  choices.push_back(source.sequence({source.chars(rest.complement()), any}));
  const ExprId longer = source.choice(std::move(choices));
  return tree.ends ? longer : source.optional(longer);
}

}  // namespace

ExprId JsonText::shared(std::optional<RuleId>& rule, const char* name, ExprId (JsonText::*make)()) {
  if (!rule) {
    rule = source_.add_rule(name);
    const ExprId body = (this->*make)();
    source_.define(*rule, body);
  }
  return source_.call(*rule);
}

ExprId JsonText::space() { return shared(space_, "space", &JsonText::make_space); }
ExprId JsonText::integer() { return shared(integer_, "integer", &JsonText::make_integer); }
ExprId JsonText::number() { return shared(number_, "number", &JsonText::make_number); }
ExprId JsonText::value() { return shared(value_, "value", &JsonText::make_value); }
ExprId JsonText::object() { return shared(object_, "object", &JsonText::make_object); }
ExprId JsonText::array() { return shared(array_, "array", &JsonText::make_array); }

ExprId JsonText::make_space() {
  const ExprId indent = source_.repeat(source_.chars({{' ', ' '}, {'\t', '\t'}}), 0, kMaxIndent);
  return source_.optional(source_.choice({text(" "), source_.sequence({text("\n"), indent})}));
}

ExprId JsonText::string(uint32_t least, uint32_t most) {
  if (least == 0 && most == kNoLimit) return shared(string_, "string", &JsonText::make_string);
  return source_.sequence({text("\""), source_.repeat(string_character(), least, most), text("\"")});
}

ExprId JsonText::make_string() {
  return source_.sequence({text("\""), source_.repeat(string_character(), 0, kNoLimit), text("\"")});
}

// Any character as it is or by an escape; half of a surrogate pair is none.
ExprId JsonText::string_character() {
  if (character_) return source_.call(*character_);
  character_ = source_.add_rule("character");
  const CharSet hex = {{'0', '9'}, {'A', 'F'}, {'a', 'f'}};
  const auto digit = [&](CharSet set) { return source_.chars(std::move(set)); };
  const auto any = [&](uint32_t count) { return source_.repeat(digit(hex), count, count); };
  const ExprId d = digit({{'d', 'd'}, {'D', 'D'}});
  const ExprId plain = source_.sequence({digit(hex.without({{'d', 'd'}, {'D', 'D'}})), any(3)});
  const ExprId below = source_.sequence({d, digit({{'0', '7'}}), any(2)});
  const ExprId high = source_.sequence({d, digit({{'8', '9'}, {'A', 'B'}, {'a', 'b'}}), any(2)});
  const ExprId low = source_.sequence({text("\\u"), d, digit({{'C', 'F'}, {'c', 'f'}}), any(2)});
  const ExprId unicode = source_.sequence({text("u"), source_.choice({plain, below, source_.sequence({high, low})})});
  CharSet simple;
  for (const char c : std::string_view("\"\\/bfnrt")) simple.add(static_cast<uint8_t>(c), static_cast<uint8_t>(c));
  const ExprId escape = source_.sequence({text("\\"), source_.choice({source_.chars(simple), unicode})});
  source_.define(*character_, source_.choice({source_.chars(escaped_characters().complement()), escape}));
  return source_.call(*character_);
}

ExprId JsonText::character(const CharSet& set) {
  std::vector<ExprId> choices = {source_.chars(set.without(escaped_characters()))};
  for (const auto& [first, last] : escaped_characters().ranges())
    for (uint32_t c = first; c <= last; ++c) {
      if (!set.contains(c)) continue;
      const std::string quoted = Json(std::string(1, static_cast<char>(c))).dump();
      choices.push_back(text(std::string_view(quoted).substr(1, quoted.size() - 2)));
    }
  return source_.choice(std::move(choices));
}

ExprId JsonText::other_key(const std::vector<std::string>& names) {
  NameTree tree;
  for (std::string_view name : names) {
    NameTree* at = &tree;
    for (size_t i = 0; i < name.size();) {
      const text::Utf8Char c = text::read_utf8(name.substr(i));
      at = &at->next[c.code_point];
      i += static_cast<size_t>(c.length);
    }
    at->ends = true;
  }
  const RuleId any = source_.add_rule("rest of a key");
  source_.define(any, source_.repeat(source_.chars(escaped_characters().complement()), 0, kNoLimit));
  return source_.sequence({text("\""), other_than(source_, tree, source_.call(any)), text("\"")});
}

ExprId JsonText::digits(uint32_t least, uint32_t most) {
  return source_.repeat(source_.chars({{'0', '9'}}), least, most);
}

ExprId JsonText::make_integer() {
  const ExprId positive = source_.sequence({source_.chars({{'1', '9'}}), digits(0, kMaxIntegerDigits - 1)});
  return source_.sequence({source_.optional(text("-")), source_.choice({text("0"), positive})});
}

ExprId JsonText::integer(std::optional<int64_t> least, std::optional<int64_t> most) {
  if (!least && !most) return integer();
  return integer_range(source_, least, most, kMaxIntegerDigits);
}

ExprId JsonText::make_number() {
  const ExprId fraction = source_.sequence({text("."), digits(1, kMaxFractionDigits)});
  const ExprId exponent = source_.sequence({source_.chars({{'E', 'E'}, {'e', 'e'}}),
                                            source_.optional(source_.chars({{'+', '+'}, {'-', '-'}})), digits(1, 2)});
  return source_.sequence({integer(), source_.optional(fraction), source_.optional(exponent)});
}

ExprId JsonText::make_value() {
  return source_.choice({object(), array(), string(), number(), text("true"), text("false"), text("null")});
}

ExprId JsonText::make_object() { return in_brackets('{', list(member(string(), value())), '}'); }
ExprId JsonText::make_array() { return in_brackets('[', list(value()), ']'); }

ExprId JsonText::in_brackets(char open, ExprId inner, char close, bool filled) {
  const ExprId content = source_.sequence({inner, space()});
  return source_.sequence({text({&open, 1}), space(), filled ? content : source_.optional(content), text({&close, 1})});
}

ExprId JsonText::comma() { return source_.sequence({text(","), space()}); }

ExprId JsonText::member(ExprId key, ExprId value) { return source_.sequence({key, text(":"), space(), value}); }

ExprId JsonText::list(ExprId part, uint32_t least, uint32_t most) {
  if (most == 0) return source_.sequence({});
  const ExprId more = source_.sequence({space(), comma(), part});
  const ExprId all =
      source_.sequence({part, source_.repeat(more, least > 0 ? least - 1 : 0, most == kNoLimit ? kNoLimit : most - 1)});
  return least > 0 ? all : source_.optional(all);
}

ExprId JsonText::literal(const OrderedJson& value) { return text(value.dump()); }

}  // namespace puna::grammar
