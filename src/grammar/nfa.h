// Thompson's construction: the body of a rule as an automaton with empty steps, small rules copied into their callers.
#pragma once

#include <cstdint>
#include <vector>

#include "grammar/source.h"

namespace puna::grammar {

struct NfaEdge {
  enum class Kind : uint8_t { kEmpty, kBytes, kCall };
  uint32_t from, to;
  Kind kind;
  uint8_t first = 0, last = 0;  // kBytes
  RuleId rule = 0;              // kCall
};

/// Node 0 is the start, which no edge enters; node 1 the end.
struct Nfa {
  uint32_t num_nodes = 0;
  std::vector<NfaEdge> edges;
  bool has_loop = false;
  bool copied = false;  // every caller has a copy: it is never called
};

/// One automaton per rule; those of copied rules are empty unless it is the root.
std::vector<Nfa> build_nfas(const Source& source, const RuleFacts& facts);

}  // namespace puna::grammar
