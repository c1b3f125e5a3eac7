// What a step must at least read and compute, by formula, so that a measured time has something to be compared with.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "arch/config.h"
#include "bench/machine.h"
#include "model/model.h"
#include "model/paged_cache.h"

namespace puna::bench {

/// kPrompt: `length` tokens of one sequence from nothing, logits of the last. kDecode: one token of each of `batch`
/// sequences that hold `length` already.
struct Case {
  enum class Kind { kPrompt, kDecode };
  Kind kind = Kind::kPrompt;
  int64_t length = 0;
  int64_t batch = 1;

  int64_t tokens() const { return kind == Kind::kPrompt ? length : batch; }
  std::string name() const;  // "prompt 512", "decode 8 at 4096"
};

/// Bytes of a model's weights as they lie in memory, and what a token multiplies with.
struct ModelWork {
  arch::TextConfig config;
  double resident_bytes = 0;       // attention, shared experts, dense FFN, router, head
  double head_bytes = 0;           // of these
  double expert_bytes = 0;         // of one expert of one layer
  double resident_parameters = 0;  // without the head
  double head_parameters = 0;
  double expert_parameters = 0;  // of one expert of one layer
  int64_t expert_layers = 0;
  double cache_row_bytes = 0;  // keys and values of a position in one layer
  bool integer = false;        // the experts' products are INT8 operations
};
ModelWork work_of(const model::Model& model, const model::PageFormat& format);

struct Work {
  double bytes = 0;        // weights read once, keys and values of every sequence
  double operations = 0;   // of products of weights and of attention
  double experts_hit = 0;  // distinct ones of a layer, on average
};
/// Without `experts_hit`: those that are expected when every choice is as likely as any other.
Work work_of(const ModelWork& model, const Case& what, std::optional<double> experts_hit = {});

/// What was measured in the same round.
struct Limits {
  double read_bandwidth = 0;  // bytes/s
  double operations = 0;      // per second
};
/// The least time, and "bytes" or "operations", whichever it is.
double bound_seconds(const Work& work, const Limits& limits, const char** which);

}  // namespace puna::bench
