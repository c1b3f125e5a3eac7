#include "ops/moe.h"

#include <algorithm>

#include "base/error.h"

namespace puna::ops {
namespace {

at::Tensor index_tensor(const std::vector<int64_t>& values, at::Device device) {
  return at::tensor(values, at::kLong).to(device);
}

// Counting sort of the choices by expert: stable, so that the result depends on the choices alone.
void group_by_expert(Routing& routing, int64_t num_experts) {
  const at::Tensor selected = routing.selected.cpu().contiguous();
  const int64_t* choice = selected.const_data_ptr<int64_t>();
  const int64_t N = selected.numel(), A = selected.size(1);
  routing.offsets.assign(num_experts + 1, 0);
  for (int64_t n = 0; n < N; ++n) ++routing.offsets[choice[n] + 1];
  for (int64_t e = 0; e < num_experts; ++e) routing.offsets[e + 1] += routing.offsets[e];
  routing.sorted = std::is_sorted(choice, choice + N);
  if (routing.sorted && A == 1) return;

  std::vector<int64_t> next(routing.offsets.begin(), routing.offsets.end() - 1);
  std::vector<int64_t> token_of_row(N), choice_of_row(N), row_of_choice(N);
  for (int64_t n = 0; n < N; ++n) {
    const int64_t row = next[choice[n]]++;
    token_of_row[row] = n / A;
    choice_of_row[row] = n;
    row_of_choice[n] = row;
  }
  routing.sorted = false;
  const at::Device device = routing.selected.device();
  routing.token_of_row = index_tensor(token_of_row, device);
  routing.choice_of_row = index_tensor(choice_of_row, device);
  routing.row_of_choice = index_tensor(row_of_choice, device);
}

}  // namespace

Routing route(const at::Tensor& logits, int64_t experts_per_token, RouterScore score) {
  const int64_t E = logits.size(1);
  PUNA_CHECK(experts_per_token >= 1 && experts_per_token <= E, "route: {} of {} experts", experts_per_token, E);
  Routing routing;
  at::Tensor top;
  if (experts_per_token == 1) {
    std::tie(top, routing.selected) = logits.max(1, /*keepdim=*/true);
  } else {
    auto [values, indices] = logits.sort(/*stable=*/true, /*dim=*/1, /*descending=*/true);
    top = values.narrow(1, 0, experts_per_token);
    routing.selected = indices.narrow(1, 0, experts_per_token).contiguous();
  }
  routing.scores = score == RouterScore::kSigmoid ? top.to(at::kFloat).sigmoid()
                                                  : logits.to(at::kFloat).softmax(1).gather(1, routing.selected);
  routing.scores = routing.scores.to(logits.scalar_type());
  group_by_expert(routing, E);
  return routing;
}

at::Tensor gather_rows(const at::Tensor& x, const Routing& routing) {
  return routing.sorted ? x : x.index_select(0, routing.token_of_row);
}

at::Tensor gather_scores(const Routing& routing) {
  const at::Tensor flat = routing.scores.reshape({-1, 1});
  return routing.sorted ? flat : flat.index_select(0, routing.choice_of_row);
}

at::Tensor combine_rows(const at::Tensor& rows, const Routing& routing) {
  if (routing.sorted) return rows;
  const at::Tensor choices = rows.index_select(0, routing.row_of_choice);
  const int64_t T = routing.selected.size(0), A = routing.selected.size(1);
  return A == 1 ? choices : choices.view({T, A, rows.size(1)}).sum(1);
}

}  // namespace puna::ops
