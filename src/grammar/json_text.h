// Pieces of JSON as grammar expressions. Texts are as a program would write them: one spelling of numbers within 64
// bits of range, no whitespace but one blank, or a line break with indentation.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "grammar/source.h"

namespace puna::grammar {

/// Shared rules of JSON in one Source, made when first wanted.
class JsonText {
 public:
  explicit JsonText(Source& source) : source_(source) {}

  ExprId space();
  ExprId text(std::string_view bytes) { return source_.bytes(bytes); }
  /// A string of `least` to `most` characters (code points).
  ExprId string(uint32_t least = 0, uint32_t most = kNoLimit);
  /// One character of the set as it stands within a JSON string, escaped where it must be.
  ExprId character(const CharSet& set);
  /// A string without escapes that is none of `names`: keys beside the listed ones.
  ExprId other_key(const std::vector<std::string>& names);
  ExprId integer();
  /// Integers of a range; an absent end is open, up to 18 digits.
  ExprId integer(std::optional<int64_t> least, std::optional<int64_t> most);
  ExprId number();
  ExprId value();  // anything
  ExprId object();
  ExprId array();
  /// Exactly this value, without whitespace.
  ExprId literal(const OrderedJson& value);

  /// Brackets or braces around elements or members. `filled`: never empty.
  ExprId in_brackets(char open, ExprId inner, char close, bool filled = false);
  ExprId comma();
  ExprId member(ExprId key, ExprId value);
  /// `part` and, separated by commas, more of it.
  ExprId list(ExprId part, uint32_t least = 0, uint32_t most = kNoLimit);

 private:
  ExprId shared(std::optional<RuleId>& rule, const char* name, ExprId (JsonText::*make)());
  ExprId string_character();
  ExprId make_string();
  ExprId make_integer();
  ExprId make_number();
  ExprId make_value();
  ExprId make_object();
  ExprId make_array();
  ExprId make_space();
  ExprId digits(uint32_t least, uint32_t most);

  Source& source_;
  std::optional<RuleId> space_, string_, character_, integer_, number_, value_, object_, array_;
};

}  // namespace puna::grammar
