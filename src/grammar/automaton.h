// The rules of a grammar as deterministic automata over bytes, which may call each other.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "grammar/source.h"

namespace puna::grammar {

using StateId = uint32_t;
inline constexpr int32_t kDead = -1;

/// States of all rules are numbered together. From every state its rule can still be completed.
struct Automaton {
  struct Call {
    RuleId rule;
    StateId then;  // the caller's state once the rule is complete
  };

  std::array<uint8_t, 256> byte_class{};  // bytes of one class go the same way from every state
  std::vector<uint16_t> class_bytes;      // [classes] how many bytes
  std::vector<uint8_t> class_first;       // [classes] the least of them
  std::vector<int32_t> next;              // [states, classes] a state or kDead
  std::vector<uint8_t> final;             // [states] the rule is complete here
  std::vector<uint8_t> has_bytes;         // [states] some byte leads on
  std::vector<uint32_t> call_begin;       // [states + 1] into calls
  std::vector<Call> calls;
  std::vector<StateId> rule_start;  // [rules]; never final: a caller skips a rule that may be empty
  std::vector<uint32_t> rule_rank;  // [rules] greater than that of every rule that calls it as its first step
  StateId root = 0;                 // final where the whole text may be empty

  size_t num_states() const { return final.size(); }
  size_t num_classes() const { return class_bytes.size(); }
  int32_t step(StateId state, uint8_t cls) const { return next[state * num_classes() + cls]; }
  std::span<const Call> calls_of(StateId state) const {
    return {calls.data() + call_begin[state], calls.data() + call_begin[state + 1]};
  }
  /// Complete, and nothing else: a call that returns here need not be remembered.
  bool only_final(StateId state) const {
    return final[state] && !has_bytes[state] && call_begin[state] == call_begin[state + 1];
  }
};

/// Throws Error when no text is in the grammar, when a rule begins with itself (left recursion; the direct form
/// r ::= r a | b is handled), and when the automaton would be too large.
Automaton build_automaton(Source source);

}  // namespace puna::grammar
