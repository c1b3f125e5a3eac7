// For each state of a grammar's rules, the tokens that its rule allows: what does not depend on who called the rule.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <vector>

#include "grammar/configurations.h"
#include "grammar/vocabulary.h"

namespace puna::grammar {

/// Nodes of known steps that take about as long as an item of a new one.
inline constexpr int64_t kNodesAsOne = 8;

/// Walks the tokens below `node` of the tree from configuration `from`; calls visit(node, configuration) for every node
/// that the grammar allows. `path` is scratch of max_depth() + 1 entries.
template <typename Visit>
void walk(const Vocabulary& vocabulary, Configurations& configurations, Configurations::Id from, uint32_t node,
          std::vector<Configurations::Id>& path, const Visit& visit) {
  const Vocabulary::Node* nodes = vocabulary.nodes().data();
  const uint8_t* classes = configurations.automaton().byte_class.data();
  const uint32_t end = nodes[node].end;
  path[nodes[node].depth] = from;
  int64_t visited = 0;
  for (uint32_t i = node + 1; i < end;) {
    const Vocabulary::Node& at = nodes[i];
    const Configurations::Id to = configurations.next(path[at.depth - 1u], classes[at.byte]);
    if (to == kDead) {
      i = at.end;
      continue;
    }
    path[at.depth] = to;
    visit(i, to);
    ++i;
    if (++visited % kNodesAsOne == 0) configurations.spend(1);
  }
}

/// Tokens that a rule allows from one of its states, its first byte taken there.
struct StateTokens {
  std::vector<uint64_t> bits;   // a mask, when there are many
  std::vector<TokenId> ids;     // else the tokens
  std::vector<uint32_t> exits;  // nodes at which the rule may be complete and tokens go on: their caller decides
};

/// Computes them once each, when first wanted or ahead of time. Safe to share between threads.
class TokenMasks {
 public:
  TokenMasks(std::shared_ptr<const Automaton> automaton, std::shared_ptr<const Vocabulary> vocabulary);

  /// Takes what it did from `work`, as Configurations counts. Throws Error when that is not enough.
  std::shared_ptr<const StateTokens> of(StateId state, int64_t& work);
  /// Computes those of all states in order, until the time is over. Throws Error when one takes more than `work`.
  void precompute(std::chrono::microseconds time, int64_t work);
  size_t bytes() const;

 private:
  std::shared_ptr<const StateTokens> compute(StateId state);

  std::shared_ptr<const Automaton> automaton_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  mutable std::mutex mutex_;
  std::unique_ptr<Configurations> configurations_;
  std::vector<std::shared_ptr<const StateTokens>> known_;
  size_t known_bytes_ = 0;
  std::vector<Configurations::Id> path_;
  std::vector<uint64_t> bits_;
};

}  // namespace puna::grammar
