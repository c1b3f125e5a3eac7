#include "model/routing_statistics.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

namespace puna::model {
namespace {

// Entropy of softmax(logits), nats.
double entropy_of(const double* logits, int64_t E) {
  const double highest = *std::max_element(logits, logits + E);
  double sum = 0, weighted = 0;
  for (int64_t e = 0; e < E; ++e) {
    const double share = std::exp(logits[e] - highest);
    sum += share;
    weighted += share * (logits[e] - highest);
  }
  return std::log(sum) - weighted / sum;
}

// The unbiased choice is the A highest logits, ties to the lower expert: every chosen expert must be among them.
bool is_flip(const double* logits, int64_t E, const int64_t* chosen, int64_t A) {
  for (int64_t a = 0; a < A; ++a) {
    const int64_t e = chosen[a];
    int64_t better = 0;
    for (int64_t other = 0; other < E; ++other)
      better += logits[other] > logits[e] || (logits[other] == logits[e] && other < e);
    if (better >= A) return true;
  }
  return false;
}

}  // namespace

void add_statistics(RoutingStatistics& statistics, const at::Tensor& logits, const ops::Routing& routing,
                    const std::vector<int64_t>& token_ids, int64_t patch_token, bool biased) {
  const c10::NoGradGuard guard;
  const int64_t T = logits.size(0), E = logits.size(1), A = routing.selected.size(1);
  const at::Tensor logits_TE = logits.detach().cpu().to(at::kDouble).contiguous();
  const at::Tensor selected_TA = routing.selected.cpu().contiguous();
  const double* l = logits_TE.const_data_ptr<double>();
  const int64_t* chosen = selected_TA.const_data_ptr<int64_t>();
  statistics.expert_rows.resize(E);
  statistics.expert_image_rows.resize(E);
  for (int64_t t = 0; t < T; ++t, l += E, chosen += A) {
    for (int64_t a = 0; a < A; ++a) {
      ++statistics.expert_rows[chosen[a]];
      statistics.expert_image_rows[chosen[a]] += token_ids[t] == patch_token;
    }
    statistics.entropy_sum += entropy_of(l, E);
    statistics.bias_flips += biased && is_flip(l, E, chosen, A);
  }
  statistics.tokens += T;
}

}  // namespace puna::model
