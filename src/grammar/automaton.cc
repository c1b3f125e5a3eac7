#include "grammar/automaton.h"

#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "grammar/nfa.h"

namespace puna::grammar {
namespace {

constexpr size_t kMaxStates = 200'000;
constexpr size_t kMaxTable = 16'000'000;    // entries of all states and classes
constexpr size_t kMaxSubsets = 20'000'000;  // nodes of all subsets together: bounds the time

struct VectorHash {
  size_t operator()(const std::vector<uint32_t>& v) const {
    uint64_t hash = v.size();
    for (const uint32_t x : v) hash = (hash ^ x) * 0x9E3779B97F4A7C15u, hash ^= hash >> 29;
    return hash;
  }
};

// Bytes between which no edge of any rule begins or ends are one class.
void find_classes(const std::vector<Nfa>& nfas, Automaton& out) {
  std::array<bool, 257> cut{};
  cut[0] = true;
  for (const Nfa& nfa : nfas)
    for (const NfaEdge& edge : nfa.edges)
      if (edge.kind == NfaEdge::Kind::kBytes) cut[edge.first] = cut[edge.last + 1u] = true;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    if (cut[byte]) {
      out.class_first.push_back(static_cast<uint8_t>(byte));
      out.class_bytes.push_back(0);
    }
    ++out.class_bytes.back();
    out.byte_class[byte] = static_cast<uint8_t>(out.class_bytes.size() - 1);
  }
}

constexpr size_t kMaxWalked = 300'000'000;  // edges of all rules that are looked at

struct Spent {
  size_t subset_nodes = 0, walked = 0;
};

// The subset construction for one rule; its states are appended to the automaton.

class Determiniser {
 public:
  Determiniser(const Source& source, const Nfa& nfa, Automaton& out, std::vector<std::vector<Automaton::Call>>& calls,
               Spent& spent)
      : source_(source), nfa_(nfa), out_(out), calls_(calls), spent_(spent), base_(calls.size()) {
    begin_.assign(nfa.num_nodes + 1, 0);
    for (const NfaEdge& edge : nfa.edges) ++begin_[edge.from + 1];
    for (size_t i = 1; i < begin_.size(); ++i) begin_[i] += begin_[i - 1];
    edges_.resize(nfa.edges.size());
    std::vector<uint32_t> at(begin_.begin(), begin_.end() - 1);
    for (const NfaEdge& edge : nfa.edges) edges_[at[edge.from]++] = edge;
    mark_.assign(nfa.num_nodes, 0);
  }

  /// Returns the start state, whether or not it is final.
  StateId run() {
    // The start is a state of its own, which nothing comes back to: whether it is final is told apart.
    start_subset_ = closure({0});
    const auto start = static_cast<StateId>(calls_.size());
    add_state(start_subset_);
    for (size_t i = 0; i < subsets_.size(); ++i) expand(static_cast<StateId>(base_ + i));
    trim();
    return start;
  }

 private:
  StateId state_of(const std::vector<uint32_t>& kernel) {
    if (const auto known = by_kernel_.find(kernel); known != by_kernel_.end()) return known->second;
    std::vector<uint32_t> subset = closure(kernel);
    const auto [entry, is_new] = by_subset_.try_emplace(std::move(subset), static_cast<StateId>(calls_.size()));
    if (is_new) add_state(entry->first);
    by_kernel_.emplace(kernel, entry->second);
    spent_.subset_nodes += kernel.size();
    return entry->second;
  }

  void add_state(const std::vector<uint32_t>& subset) {
    spent_.subset_nodes += subset.size();
    if (calls_.size() >= kMaxStates || out_.next.size() + out_.num_classes() > kMaxTable ||
        spent_.subset_nodes > kMaxSubsets)
      fail(source_.where(), "the grammar is too large: more than {} states; use smaller counts or fewer alternatives",
           calls_.size());
    subsets_.push_back(&subset);
    calls_.emplace_back();
    out_.next.resize(out_.next.size() + out_.num_classes(), kDead);
    out_.final.push_back(std::binary_search(subset.begin(), subset.end(), 1u));
  }

  // The nodes reached by empty steps; of them, those that have another edge, and the end.
  std::vector<uint32_t> closure(const std::vector<uint32_t>& kernel) {
    std::vector<uint32_t> work = kernel, result;
    ++stamp_;
    for (const uint32_t node : work) mark_[node] = stamp_;
    while (!work.empty()) {
      const uint32_t node = work.back();
      work.pop_back();
      bool kept = node == 1;
      spent_.walked += begin_[node + 1] - begin_[node] + 1;
      for (uint32_t e = begin_[node]; e < begin_[node + 1]; ++e) {
        if (edges_[e].kind != NfaEdge::Kind::kEmpty) {
          kept = true;
        } else if (mark_[edges_[e].to] != stamp_) {
          mark_[edges_[e].to] = stamp_;
          work.push_back(edges_[e].to);
        }
      }
      if (kept) result.push_back(node);
    }
    if (spent_.walked > kMaxWalked)
      fail(source_.where(), "the grammar takes too long to compile; use fewer rules and smaller counts");
    std::sort(result.begin(), result.end());
    return result;
  }

  static void normalise(std::vector<uint32_t>& nodes) {
    std::sort(nodes.begin(), nodes.end());
    nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  }

  void expand(StateId state) {
    const size_t classes = out_.num_classes();
    std::vector<std::vector<uint32_t>> by_class(classes);
    std::vector<std::pair<RuleId, uint32_t>> by_rule;
    for (const uint32_t node : *subsets_[state - base_])
      for (uint32_t e = begin_[node]; e < begin_[node + 1]; ++e) {
        const NfaEdge& edge = edges_[e];
        if (edge.kind == NfaEdge::Kind::kCall) by_rule.push_back({edge.rule, edge.to});
        if (edge.kind != NfaEdge::Kind::kBytes) continue;
        for (size_t c = out_.byte_class[edge.first]; c <= out_.byte_class[edge.last]; ++c)
          by_class[c].push_back(edge.to);
      }
    for (size_t c = 0; c < classes; ++c) {
      if (by_class[c].empty()) continue;
      normalise(by_class[c]);
      const StateId to = c > 0 && by_class[c] == by_class[c - 1]
                             ? static_cast<StateId>(out_.next[state * classes + c - 1])
                             : state_of(by_class[c]);
      out_.next[state * classes + c] = static_cast<int32_t>(to);
    }
    std::sort(by_rule.begin(), by_rule.end());
    for (size_t i = 0; i < by_rule.size();) {
      std::vector<uint32_t> targets;
      const RuleId rule = by_rule[i].first;
      for (; i < by_rule.size() && by_rule[i].first == rule; ++i) targets.push_back(by_rule[i].second);
      normalise(targets);
      const StateId then = state_of(targets);
      calls_[state].push_back({rule, then});
    }
  }

  // Removes the steps after which the rule cannot be completed any more.
  void trim() {
    const size_t count = calls_.size() - base_, classes = out_.num_classes();
    std::vector<std::vector<uint32_t>> from(count);
    for (size_t s = 0; s < count; ++s) {
      for (size_t c = 0; c < classes; ++c)
        if (const int32_t to = out_.next[(base_ + s) * classes + c]; to != kDead)
          if (auto& list = from[static_cast<size_t>(to) - base_]; list.empty() || list.back() != s)
            list.push_back(static_cast<uint32_t>(s));
      for (const auto& call : calls_[base_ + s]) from[call.then - base_].push_back(static_cast<uint32_t>(s));
    }
    std::vector<bool> alive(count, false);
    std::vector<uint32_t> work;
    for (size_t s = 0; s < count; ++s)
      if (out_.final[base_ + s]) alive[s] = true, work.push_back(static_cast<uint32_t>(s));
    while (!work.empty()) {
      const uint32_t s = work.back();
      work.pop_back();
      for (const uint32_t p : from[s])
        if (!alive[p]) alive[p] = true, work.push_back(p);
    }
    for (size_t s = 0; s < count; ++s) {
      for (size_t c = 0; c < classes; ++c) {
        int32_t& to = out_.next[(base_ + s) * classes + c];
        if (to != kDead && !alive[static_cast<size_t>(to) - base_]) to = kDead;
      }
      std::erase_if(calls_[base_ + s], [&](const auto& call) { return !alive[call.then - base_]; });
    }
  }

  const Source& source_;
  const Nfa& nfa_;
  Automaton& out_;
  std::vector<std::vector<Automaton::Call>>& calls_;  // per state of the whole automaton
  Spent& spent_;
  size_t base_;
  std::vector<uint32_t> start_subset_;
  std::vector<uint32_t> begin_, mark_;
  std::vector<NfaEdge> edges_;
  uint32_t stamp_ = 0;
  std::unordered_map<std::vector<uint32_t>, StateId, VectorHash> by_kernel_, by_subset_;
  std::vector<const std::vector<uint32_t>*> subsets_;
};

// Ranks rules by who calls whom as a first step; a circle is a left recursion.
void rank_rules(const Source& source, Automaton& out) {
  const size_t rules = source.num_rules();
  std::vector<uint32_t> pending(rules, 0);
  for (RuleId rule = 0; rule < rules; ++rule)
    if (out.rule_start[rule] < out.num_states())
      for (const auto& call : out.calls_of(out.rule_start[rule])) ++pending[call.rule];
  std::vector<RuleId> order;
  for (RuleId rule = 0; rule < rules; ++rule)
    if (pending[rule] == 0) order.push_back(rule);
  out.rule_rank.assign(rules, 0);
  for (size_t i = 0; i < order.size(); ++i) {
    out.rule_rank[order[i]] = static_cast<uint32_t>(i);
    if (out.rule_start[order[i]] >= out.num_states()) continue;
    for (const auto& call : out.calls_of(out.rule_start[order[i]]))
      if (--pending[call.rule] == 0) order.push_back(call.rule);
  }
  const auto stuck = std::find_if(pending.begin(), pending.end(), [](uint32_t count) { return count != 0; });
  if (stuck == pending.end()) return;
  // Backwards from a rule that waits for its callers there is a circle.
  std::vector<RuleId> caller(rules);
  for (RuleId rule = 0; rule < rules; ++rule)
    if (pending[rule] != 0)
      for (const auto& call : out.calls_of(out.rule_start[rule])) caller[call.rule] = rule;
  auto rule = static_cast<RuleId>(stuck - pending.begin());
  for (size_t i = 0; i < rules; ++i) rule = caller[rule];
  fail(source.where(), "the rule '{}' can begin with itself (left recursion); write what repeats behind what begins",
       source.name(rule));
}

}  // namespace

Automaton build_automaton(Source source) {
  remove_direct_left_recursion(source);
  // A rule of its own around the root: its start may be final, and no rule calls it.
  const RuleId whole = source.add_rule("the whole text");
  source.define(whole, source.call(source.root));
  const RuleFacts facts = rule_facts(source);
  if (!facts.productive[whole])
    fail(source.where(), "no finite text matches the rule '{}'; give it an alternative that ends",
         source.name(source.root));
  const std::vector<Nfa> nfas = build_nfas(source, facts);
  Automaton out;
  find_classes(nfas, out);
  std::vector<std::vector<Automaton::Call>> calls;
  Spent spent;
  out.rule_start.assign(source.num_rules(), std::numeric_limits<StateId>::max());
  for (RuleId rule = 0; rule < source.num_rules(); ++rule) {
    if (!facts.productive[rule] || (nfas[rule].copied && rule != whole)) continue;
    const StateId start = Determiniser(source, nfas[rule], out, calls, spent).run();
    out.rule_start[rule] = start;
    if (rule == whole)
      out.root = start;
    else
      out.final[start] = false;
  }
  for (const auto& list : calls) {
    out.call_begin.push_back(static_cast<uint32_t>(out.calls.size()));
    out.calls.insert(out.calls.end(), list.begin(), list.end());
  }
  out.call_begin.push_back(static_cast<uint32_t>(out.calls.size()));
  for (StateId state = 0; state < out.num_states(); ++state) {
    const auto row = out.next.begin() + static_cast<int64_t>(state * out.num_classes());
    out.has_bytes.push_back(
        std::any_of(row, row + static_cast<int64_t>(out.num_classes()), [](int32_t to) { return to != kDead; }));
  }
  rank_rules(source, out);
  return out;
}

}  // namespace puna::grammar
