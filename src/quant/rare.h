// Routed experts that a profile says are rarely used: they may have fewer bits than the others of their layer, where
// that changes their weights no more than is allowed.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "arch/config.h"
#include "base/json.h"
#include "quant/rules.h"

namespace puna::quant {

struct RareOptions {
  std::string format;
  double share = 0.5;      // of a layer's experts: those with the fewest rows
  double max_error = 0.4;  // relative, of an expert's weights; above it the expert keeps the rules' format
};

struct RareExpert {
  int64_t rows = 0;  // of the profile
  double error = 0;  // relative, of gate, up and down together; 0 until it is measured
};

struct RareExperts {
  Format format, others;  // others: of the rules
  double max_error = 0;
  int64_t profile_rows = 0;                                        // of all experts
  std::map<std::pair<int64_t, int64_t>, RareExpert> experts = {};  // by layer and expert

  bool any() const { return !experts.empty(); }
  /// Whether the expert is to have `format`.
  bool has(int64_t layer, int64_t expert) const;
  Json json() const;
  /// One line for people, with the experts that keep the rules' format.
  std::string text() const;
};

/// The rarest experts of each layer. `profile`: as puna experts profile writes it, `where` its name. Throws Error for a
/// profile of another model, and for a format that has no fewer bits than the routed experts' or other groups.
RareExperts choose_rare(const arch::Llama4Config& config, const Rules& rules, const RareOptions& options,
                        const Json& profile, std::string_view where);

}  // namespace puna::quant
