// Cases run in turn, round after round, with the machine's limits measured between them.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "bench/bounds.h"
#include "bench/routing.h"

namespace puna::bench {

struct RunOptions {
  std::vector<Case> cases;
  int64_t rounds = 5;
  int64_t steps = 3;  // decoded tokens of a sequence in a round, so that one step's noise does not decide
  int64_t threads = 1;
  Routing routing = Routing::kUniform;
  uint64_t seed = 0;                        // of the tokens
  std::filesystem::path disk_file = {};     // whose reading is measured; empty: not
  std::function<void()> before_round = {};  // called before each, the one that is not counted too
  bool wall_time = false;                   // also with one thread, whose processor time is taken otherwise
  const std::atomic<bool>* interrupt = nullptr;
};

/// What a step of a model with experts on disk did, on average.
struct DiskUse {
  double uses = 0;                          // of experts
  double in_memory = 0, read_ahead = 0;     // of these: there, or read since the layer before named them
  double read_bytes = 0, missed_bytes = 0;  // missed: without what was read ahead in vain
  double stall_seconds = 0;
};

struct CaseResult {
  Case what;
  Work work;  // with the experts that the tokens hit, on average, where the model's routing is known
  Spread tokens_per_second = {};
  Spread fraction = {};  // of the bound that was measured in the same round
  std::optional<DiskUse> disk = {};
  const char* bound = "";  // "bytes", "operations" or "disk", of the last round
};

struct RunResult {
  std::string routing;              // in words
  Spread read_bandwidth;            // bytes/s
  Spread int8_peak;                 // operations/s
  Spread bf16_products;             // operations/s of LibTorch's own products
  std::optional<Spread> disk = {};  // bytes/s; in every round where experts are read from it, else once
  bool integer = false;             // products are compared with the first peak, not with the second
  std::vector<CaseResult> cases;
};

/// Keys and values of a depth are random. One round that is not counted comes first. The bound is that of
/// bound_seconds(), or missed bytes / what reading the file gave in the same round. Throws Error for skewed routing of
/// a model that write_random_model() did not make.
RunResult run_cases(const model::Model& model, const model::PageFormat& format, const RunOptions& options);

}  // namespace puna::bench
