#include "engine/logprobs.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/error.h"

namespace puna::engine {

Sample logprobs_of(std::span<const float> logits, TokenId id, int alternatives) {
  const double normaliser = log_sum_exp(logits);
  if (!std::isfinite(normaliser)) fail("logprobs", "logits are not finite; are the weights of the checkpoint intact?");
  Sample sample{id, logits[static_cast<size_t>(id)] - normaliser, {}};
  const auto count = std::min<size_t>(static_cast<size_t>(alternatives), logits.size());
  std::vector<TokenId> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + static_cast<int64_t>(count), order.end(), [&](TokenId a, TokenId b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  for (size_t i = 0; i < count; ++i)
    sample.top.push_back({order[i], logits[static_cast<size_t>(order[i])] - normaliser});
  return sample;
}

}  // namespace puna::engine
