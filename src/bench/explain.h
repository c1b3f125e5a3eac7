// Which kernel each part of a loaded model runs on, and why: derived from what its weights are, as the ops do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/model.h"
#include "model/paged_cache.h"

namespace puna::bench {

struct Explanation {
  std::string part;      // "attention", "routed experts", ...
  int64_t matrices = 0;  // of this form
  std::string form;      // "INT4, groups of 32"
  std::string kernel;
  std::string reason;
};

/// In model order, one entry for each part and form of its weights; attention over the cache last.
std::vector<Explanation> explain(const model::Model& model, const model::PageFormat& format);

}  // namespace puna::bench
