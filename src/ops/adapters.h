// Which low-rank additions count: those that always do, and those of the adapter that this thread applies.
#pragma once

#include <vector>

#include "ops/weight.h"

namespace puna::ops {

/// While one lives, this thread applies the adapter of that number (LowRank::adapter).
class ApplyingAdapter {
 public:
  explicit ApplyingAdapter(int number);
  ~ApplyingAdapter();
  ApplyingAdapter(const ApplyingAdapter&) = delete;
  ApplyingAdapter& operator=(const ApplyingAdapter&) = delete;

 private:
  int previous_;
};

/// The weight's, in the order they were added.
std::vector<const LowRank*> applied_adapters(const Weight& weight);
bool is_adapted(const Weight& weight);

}  // namespace puna::ops
