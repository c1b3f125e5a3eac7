#include "ops/adapters.h"

#include <algorithm>
#include <utility>

namespace puna::ops {
namespace {

thread_local int applied = LowRank::kAlways;

bool counts(const LowRank& low) { return low.adapter == LowRank::kAlways || low.adapter == applied; }

}  // namespace

ApplyingAdapter::ApplyingAdapter(int number) : previous_(std::exchange(applied, number)) {}
ApplyingAdapter::~ApplyingAdapter() { applied = previous_; }

std::vector<const LowRank*> applied_adapters(const Weight& weight) {
  std::vector<const LowRank*> result;
  for (const LowRank& low : weight.adapters)
    if (counts(low)) result.push_back(&low);
  return result;
}

bool is_adapted(const Weight& weight) { return std::ranges::any_of(weight.adapters, counts); }

}  // namespace puna::ops
