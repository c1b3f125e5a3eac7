// Cases run in turn, round after round, with the machine's limits measured between them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "bench/bounds.h"

namespace puna::bench {

struct RunOptions {
  std::vector<Case> cases;
  int64_t rounds = 5;
  int64_t threads = 1;
  uint64_t seed = 0;                        // of the random tokens
  double disk_bandwidth = 0;                // bytes/s, of experts that stay in their file
  std::function<void()> before_round = {};  // called before each, the one that is not counted too
  bool wall_time = false;                   // also with one thread, whose processor time is taken otherwise
  const std::atomic<bool>* interrupt = nullptr;
};

struct CaseResult {
  Case what;
  Work work;
  Spread tokens_per_second = {};
  Spread fraction = {};    // of the bound that was measured in the same round
  double disk_bytes = 0;   // that a step read of experts, on average
  const char* bound = "";  // "bytes", "operations" or "disk", of the last round
};

struct RunResult {
  Spread read_bandwidth;  // bytes/s
  Spread int8_peak;       // operations/s
  Spread bf16_products;   // operations/s of LibTorch's own products
  bool integer = false;   // products are compared with the first peak, not with the second
  std::vector<CaseResult> cases;
};

/// Tokens are random, so that routing is nearly uniform; keys and values of a depth are random too. One round that is
/// not counted comes first.
RunResult run_cases(const model::Model& model, const model::PageFormat& format, const RunOptions& options);

}  // namespace puna::bench
