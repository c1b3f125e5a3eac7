#include "grammar/source.h"

#include <algorithm>

#include "base/error.h"

namespace puna::grammar {
namespace {

constexpr size_t kMaxExprs = 200'000;
constexpr size_t kMaxRules = 20'000;

using Kind = Expr::Kind;

// Calls `visit` with every rule that the body calls. Bodies are shallow: readers limit the nesting.
template <typename Visit>
void for_each_call(const Source& source, ExprId id, const Visit& visit) {
  const Expr& expr = source.expr(id);
  if (expr.kind == Kind::kRule) visit(expr.rule);
  for (const ExprId part : expr.parts) for_each_call(source, part, visit);
  if (expr.kind == Kind::kJoin) for_each_call(source, expr.separator, visit);
}

std::vector<std::vector<RuleId>> called_rules(const Source& source) {
  std::vector<std::vector<RuleId>> calls(source.num_rules());
  for (RuleId rule = 0; rule < calls.size(); ++rule) {
    auto& list = calls[rule];
    for_each_call(source, source.body(rule), [&](RuleId callee) { list.push_back(callee); });
    std::sort(list.begin(), list.end());
    list.erase(std::unique(list.begin(), list.end()), list.end());
  }
  return calls;
}

// Tarjan's strongly connected components, without recursion: a hostile grammar may be one long chain.
class Components {
 public:
  Components(const std::vector<std::vector<RuleId>>& calls, RuleFacts& facts)
      : calls_(calls), facts_(facts), index_(calls.size(), 0), low_(calls.size(), 0), on_stack_(calls.size(), false) {
    for (RuleId rule = 0; rule < calls.size(); ++rule)
      if (index_[rule] == 0) visit(rule);
  }

 private:
  struct Step {
    RuleId rule;
    size_t next;
  };

  void enter(RuleId rule) {
    index_[rule] = low_[rule] = ++count_;
    stack_.push_back(rule);
    on_stack_[rule] = true;
    steps_.push_back({rule, 0});
  }

  void visit(RuleId first) {
    enter(first);
    while (!steps_.empty()) {
      const RuleId rule = steps_.back().rule;
      if (steps_.back().next < calls_[rule].size()) {
        const RuleId callee = calls_[rule][steps_.back().next++];
        if (index_[callee] == 0)
          enter(callee);
        else if (on_stack_[callee])
          low_[rule] = std::min(low_[rule], index_[callee]);
        continue;
      }
      steps_.pop_back();
      if (!steps_.empty()) low_[steps_.back().rule] = std::min(low_[steps_.back().rule], low_[rule]);
      if (low_[rule] == index_[rule]) close(rule);
    }
  }

  void close(RuleId rule) {
    const bool alone = stack_.back() == rule;
    for (RuleId member = rule + 1; member != rule;) {
      member = stack_.back();
      stack_.pop_back();
      on_stack_[member] = false;
      facts_.recursive[member] = !alone || std::binary_search(calls_[member].begin(), calls_[member].end(), member);
      facts_.bottom_up.push_back(member);
    }
  }

  const std::vector<std::vector<RuleId>>& calls_;
  RuleFacts& facts_;
  std::vector<uint32_t> index_, low_;
  std::vector<bool> on_stack_;
  std::vector<RuleId> stack_;
  std::vector<Step> steps_;
  uint32_t count_ = 0;
};

bool is_nullable(const Source& source, ExprId id, const std::vector<bool>& rules) {
  const Expr& expr = source.expr(id);
  const auto holds = [&](ExprId part) { return is_nullable(source, part, rules); };
  switch (expr.kind) {
    case Kind::kBytes:
      return expr.bytes.empty();
    case Kind::kChars:
      return false;
    case Kind::kSequence:
      return std::all_of(expr.parts.begin(), expr.parts.end(), holds);
    case Kind::kChoice:
      return std::any_of(expr.parts.begin(), expr.parts.end(), holds);
    case Kind::kRepeat:
      return expr.least == 0 || holds(expr.parts[0]);
    case Kind::kRule:
      return rules[expr.rule];
    case Kind::kJoin:
      break;
  }
  bool separator = true;
  size_t present = 0;
  for (size_t i = 0; i < expr.parts.size(); ++i) {
    if (expr.optional[i]) continue;
    if (!holds(expr.parts[i])) return false;
    if (++present == 2) separator = holds(expr.separator);
  }
  return separator;
}

bool is_productive(const Source& source, ExprId id, const std::vector<bool>& rules) {
  const Expr& expr = source.expr(id);
  const auto holds = [&](ExprId part) { return is_productive(source, part, rules); };
  switch (expr.kind) {
    case Kind::kBytes:
      return true;
    case Kind::kChars:
      return !expr.chars.empty();
    case Kind::kSequence:
      return std::all_of(expr.parts.begin(), expr.parts.end(), holds);
    case Kind::kChoice:
      return std::any_of(expr.parts.begin(), expr.parts.end(), holds);
    case Kind::kRepeat:
      return expr.least == 0 || holds(expr.parts[0]);
    case Kind::kRule:
      return rules[expr.rule];
    case Kind::kJoin:
      break;
  }
  for (size_t i = 0; i < expr.parts.size(); ++i)
    if (!expr.optional[i] && !holds(expr.parts[i])) return false;
  return holds(expr.separator);
}

// The least set of rules whose bodies have the property, given that those in the set have it.
template <typename Property>
std::vector<bool> least_fixpoint(const Source& source, const RuleFacts& facts,
                                 const std::vector<std::vector<RuleId>>& calls, const Property& property) {
  std::vector<std::vector<RuleId>> callers(calls.size());
  for (RuleId rule = 0; rule < calls.size(); ++rule)
    for (const RuleId callee : calls[rule]) callers[callee].push_back(rule);
  std::vector<bool> holds(calls.size(), false), queued(calls.size(), true);
  std::vector<RuleId> work(facts.bottom_up.rbegin(), facts.bottom_up.rend());
  while (!work.empty()) {
    const RuleId rule = work.back();
    work.pop_back();
    queued[rule] = false;
    if (holds[rule] || !property(source, source.body(rule), holds)) continue;
    holds[rule] = true;
    for (const RuleId caller : callers[rule])
      if (!holds[caller] && !queued[caller]) work.push_back(caller), queued[caller] = true;
  }
  return holds;
}

// The rest of a sequence that begins with a call of `rule`; false for any other expression.
bool strip_leading_call(Source& source, ExprId id, RuleId rule, ExprId& rest) {
  const Expr expr = source.expr(id);
  if (expr.kind == Kind::kRule && expr.rule == rule) {
    rest = source.sequence({});
    return true;
  }
  if (expr.kind != Kind::kSequence || expr.parts.empty()) return false;
  ExprId first = 0;
  if (!strip_leading_call(source, expr.parts[0], rule, first)) return false;
  std::vector<ExprId> parts = expr.parts;
  parts[0] = first;
  rest = source.sequence(std::move(parts));
  return true;
}

}  // namespace

ExprId Source::add(Expr expr) {
  if (exprs_.size() >= kMaxExprs) fail(where_, "the grammar has more than {} parts; make it smaller", kMaxExprs);
  exprs_.push_back(std::move(expr));
  return static_cast<ExprId>(exprs_.size() - 1);
}

ExprId Source::bytes(std::string_view text) {
  Expr expr;
  expr.kind = Kind::kBytes;
  expr.bytes = text;
  return add(std::move(expr));
}

ExprId Source::chars(CharSet set) {
  Expr expr;
  expr.kind = Kind::kChars;
  expr.chars = std::move(set);
  return add(std::move(expr));
}

ExprId Source::sequence(std::vector<ExprId> parts) {
  if (parts.size() == 1) return parts[0];
  Expr expr;
  expr.kind = Kind::kSequence;
  expr.parts = std::move(parts);
  return add(std::move(expr));
}

ExprId Source::choice(std::vector<ExprId> parts) {
  if (parts.size() == 1) return parts[0];
  Expr expr;
  expr.kind = Kind::kChoice;
  expr.parts = std::move(parts);
  return add(std::move(expr));
}

ExprId Source::repeat(ExprId part, uint32_t least, uint32_t most) {
  Expr expr;
  expr.kind = Kind::kRepeat;
  expr.parts = {part};
  expr.least = least, expr.most = most;
  return add(std::move(expr));
}

ExprId Source::join(std::vector<ExprId> parts, std::vector<bool> optional, ExprId separator) {
  PUNA_CHECK(parts.size() == optional.size(), "{} parts, {} flags", parts.size(), optional.size());
  Expr expr;
  expr.kind = Kind::kJoin;
  expr.parts = std::move(parts), expr.optional = std::move(optional), expr.separator = separator;
  return add(std::move(expr));
}

ExprId Source::call(RuleId rule) {
  Expr expr;
  expr.kind = Kind::kRule;
  expr.rule = rule;
  return add(std::move(expr));
}

RuleId Source::add_rule(std::string name) {
  if (names_.size() >= kMaxRules) fail(where_, "the grammar has more than {} rules; make it smaller", kMaxRules);
  names_.push_back(std::move(name));
  bodies_.push_back(0);
  return static_cast<RuleId>(names_.size() - 1);
}

RuleFacts rule_facts(const Source& source) {
  RuleFacts facts;
  facts.recursive.assign(source.num_rules(), false);
  const auto calls = called_rules(source);
  Components(calls, facts);
  facts.nullable = least_fixpoint(source, facts, calls, is_nullable);
  facts.productive = least_fixpoint(source, facts, calls, is_productive);
  return facts;
}

void remove_direct_left_recursion(Source& source) {
  for (RuleId rule = 0; rule < source.num_rules(); ++rule) {
    const Expr body = source.expr(source.body(rule));
    if (body.kind != Kind::kChoice) continue;
    std::vector<ExprId> first, then;
    for (const ExprId part : body.parts) {
      ExprId rest = 0;
      if (strip_leading_call(source, part, rule, rest))
        then.push_back(rest);
      else
        first.push_back(part);
    }
    if (then.empty()) continue;
    const ExprId loop = source.repeat(source.choice(std::move(then)), 0, kNoLimit);
    source.define(rule, source.sequence({source.choice(std::move(first)), loop}));
  }
}

}  // namespace puna::grammar
