#include "grammar/nfa.h"

#include "base/error.h"

namespace puna::grammar {
namespace {

using Kind = Expr::Kind;

constexpr size_t kMaxEdges = 2'000'000;
constexpr size_t kMaxNodes = 4'000'000;    // of one rule
constexpr size_t kMaxVisits = 20'000'000;  // of expressions, while one rule is built
// Rules of at most so many edges are copied: with loops they are wide, and better shared by their callers.
constexpr size_t kCopyEdges = 200, kCopyEdgesWithLoop = 24;

class Builder {
 public:
  Builder(const Source& source, const RuleFacts& facts, std::vector<Nfa>& nfas, size_t& total)
      : source_(source), facts_(facts), nfas_(nfas), total_(total) {}

  Nfa build(RuleId rule) {
    nfa_.num_nodes = 2;
    const uint32_t body = node();
    empty(0, body);
    add(source_.body(rule), body, 1);
    return std::move(nfa_);
  }

 private:
  uint32_t node() {
    count(1);
    return nfa_.num_nodes++;
  }
  void count(size_t nodes) {
    if ((nodes_ += nodes) > kMaxNodes || ++visits_ > kMaxVisits)
      fail(source_.where(), "the grammar is too large; use smaller counts or fewer alternatives");
  }
  void edge(NfaEdge edge) {
    if (++total_ > kMaxEdges)
      fail(source_.where(), "the grammar is too large once its repetitions are written out; use smaller counts");
    nfa_.edges.push_back(edge);
  }
  void empty(uint32_t from, uint32_t to) { edge({from, to, NfaEdge::Kind::kEmpty}); }
  void byte_range(uint32_t from, uint32_t to, uint8_t first, uint8_t last) {
    edge({from, to, NfaEdge::Kind::kBytes, first, last});
  }

  void add(ExprId id, uint32_t from, uint32_t to) {
    count(0);
    const Expr& expr = source_.expr(id);
    switch (expr.kind) {
      case Kind::kBytes:
        return add_bytes(expr, from, to);
      case Kind::kChars:
        return add_chars(expr, from, to);
      case Kind::kSequence:
        return add_sequence(expr, from, to);
      case Kind::kChoice:
        for (const ExprId part : expr.parts) add(part, from, to);
        return;
      case Kind::kRepeat:
        return add_repeat(expr, from, to);
      case Kind::kRule:
        return add_rule(expr.rule, from, to);
      case Kind::kJoin:
        return add_join(expr, from, to);
    }
  }

  void add_bytes(const Expr& expr, uint32_t from, uint32_t to) {
    for (const char c : expr.bytes) {
      const uint32_t next = node();
      byte_range(from, next, static_cast<uint8_t>(c), static_cast<uint8_t>(c));
      from = next;
    }
    empty(from, to);
  }

  void add_chars(const Expr& expr, uint32_t from, uint32_t to) {
    expr.chars.for_each_utf8([&](std::span<const ByteRange> ranges) {
      uint32_t at = from;
      for (size_t i = 0; i < ranges.size(); ++i) {
        const uint32_t next = i + 1 == ranges.size() ? to : node();
        byte_range(at, next, ranges[i].first, ranges[i].last);
        at = next;
      }
    });
  }

  void add_sequence(const Expr& expr, uint32_t from, uint32_t to) {
    for (const ExprId part : expr.parts) {
      const uint32_t next = node();
      add(part, from, next);
      from = next;
    }
    empty(from, to);
  }

  void add_repeat(const Expr& expr, uint32_t from, uint32_t to) {
    const ExprId part = expr.parts[0];
    for (uint32_t i = 0; i < expr.least; ++i) {
      const uint32_t next = node();
      add(part, from, next);
      empty(from, from);  // counts towards the limit also when the part has no edges
      from = next;
    }
    if (expr.most == kNoLimit) {
      const uint32_t loop = node();
      nfa_.has_loop = true;
      empty(from, loop);
      add(part, loop, loop);
      return empty(loop, to);
    }
    for (uint32_t i = expr.least; i < expr.most; ++i) {
      const uint32_t begin = node(), end = node();
      empty(from, begin);
      empty(from, to);
      add(part, begin, end);
      from = end;
    }
    empty(from, to);
  }

  void add_rule(RuleId rule, uint32_t from, uint32_t to) {
    if (!facts_.productive[rule]) return;
    const Nfa& callee = nfas_[rule];
    if (!callee.copied) {
      edge({from, to, NfaEdge::Kind::kCall, 0, 0, rule});
      if (facts_.nullable[rule]) empty(from, to);
      return;
    }
    const uint32_t offset = nfa_.num_nodes;
    count(callee.num_nodes);
    nfa_.num_nodes += callee.num_nodes;
    nfa_.has_loop |= callee.has_loop;
    empty(from, offset);
    for (NfaEdge copy : callee.edges) {
      copy.from += offset, copy.to += offset;
      edge(copy);
    }
    empty(offset + 1, to);
  }

  // Two rows of nodes: before the first part that is present, and after one.
  void add_join(const Expr& expr, uint32_t from, uint32_t to) {
    constexpr uint32_t kNone = 0;  // the start of the rule, which is no node of a row
    uint32_t before = from, after = kNone;
    for (size_t i = 0; i < expr.parts.size(); ++i) {
      const uint32_t begin = node(), end = node(), next = node();
      if (before != kNone) empty(before, begin);
      if (after != kNone) add(expr.separator, after, begin);
      add(expr.parts[i], begin, end);
      empty(end, next);
      if (!expr.optional[i])
        before = kNone;
      else if (after != kNone)
        empty(after, next);
      after = next;
    }
    if (before != kNone) empty(before, to);
    if (after != kNone) empty(after, to);
  }

  const Source& source_;
  const RuleFacts& facts_;
  std::vector<Nfa>& nfas_;
  size_t nodes_ = 0, visits_ = 0;
  size_t& total_;
  Nfa nfa_;
};

}  // namespace

std::vector<Nfa> build_nfas(const Source& source, const RuleFacts& facts) {
  std::vector<Nfa> nfas(source.num_rules());
  size_t total = 0;
  for (const RuleId rule : facts.bottom_up) {
    Nfa nfa = Builder(source, facts, nfas, total).build(rule);
    nfa.copied = !facts.recursive[rule] && nfa.edges.size() <= (nfa.has_loop ? kCopyEdgesWithLoop : kCopyEdges);
    nfas[rule] = std::move(nfa);
  }
  return nfas;
}

}  // namespace puna::grammar
