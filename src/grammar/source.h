// src/grammar: grammars and JSON schemas compiled to automata over bytes, and from these to masks of allowed tokens.
// Bytes in, sets of token ids out: it knows neither models nor sampling, and needs no tensors.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/char_set.h"

namespace puna::grammar {

using ExprId = uint32_t;
using RuleId = uint32_t;

inline constexpr uint32_t kNoLimit = std::numeric_limits<uint32_t>::max();

/// One expression of a grammar, over texts of bytes.
struct Expr {
  enum class Kind : uint8_t { kBytes, kChars, kSequence, kChoice, kRepeat, kRule, kJoin };
  Kind kind = Kind::kSequence;
  std::string bytes;             // kBytes
  CharSet chars;                 // kChars
  std::vector<ExprId> parts;     // kSequence, kChoice, kJoin; one of kRepeat; kSequence of none is the empty text
  std::vector<bool> optional;    // kJoin: which parts may be absent
  ExprId separator = 0;          // kJoin: between parts that are present
  RuleId rule = 0;               // kRule
  uint32_t least = 0, most = 0;  // kRepeat; most may be kNoLimit
};

/// The rules of a grammar as written: what the readers of grammars and schemas make. All throw Error("[where] ...")
/// once the grammar is larger than a limit.
class Source {
 public:
  explicit Source(std::string where) : where_(std::move(where)) {}

  ExprId bytes(std::string_view text);
  ExprId chars(CharSet set);
  ExprId sequence(std::vector<ExprId> parts);
  ExprId choice(std::vector<ExprId> parts);  // of none: no text at all
  ExprId repeat(ExprId part, uint32_t least, uint32_t most);
  ExprId optional(ExprId part) { return repeat(part, 0, 1); }
  ExprId join(std::vector<ExprId> parts, std::vector<bool> optional, ExprId separator);
  ExprId call(RuleId rule);

  RuleId add_rule(std::string name);
  void define(RuleId rule, ExprId body) { bodies_[rule] = body; }

  const std::string& where() const { return where_; }
  const Expr& expr(ExprId id) const { return exprs_[id]; }
  size_t num_exprs() const { return exprs_.size(); }
  size_t num_rules() const { return names_.size(); }
  const std::string& name(RuleId rule) const { return names_[rule]; }
  ExprId body(RuleId rule) const { return bodies_[rule]; }

  RuleId root = 0;

 private:
  ExprId add(Expr expr);

  std::string where_;
  std::vector<Expr> exprs_;
  std::vector<std::string> names_;
  std::vector<ExprId> bodies_;
};

/// Facts of rules that follow from their bodies; index by RuleId.
struct RuleFacts {
  std::vector<bool> nullable;     // the empty text is one of its texts
  std::vector<bool> productive;   // has any text
  std::vector<bool> recursive;    // can call itself
  std::vector<RuleId> bottom_up;  // a rule comes after those that it calls, unless they call it too
};
RuleFacts rule_facts(const Source& source);

/// Replaces r ::= r a | b by r ::= b a*, which has the same texts.
void remove_direct_left_recursion(Source& source);

}  // namespace puna::grammar
