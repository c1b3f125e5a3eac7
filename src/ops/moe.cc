#include "ops/moe.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "base/error.h"
#include "ops/grad.h"
#include "ops/observe.h"

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

at::Tensor wide(const at::Tensor& x) { return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat); }

// LibTorch's sigmoid of a value may differ by how many there are: vectors of them, or the rest one by one.
at::Tensor sigmoid_of(const at::Tensor& x) {
  if (recording() || !x.is_cpu() || x.scalar_type() != at::kFloat) return x.sigmoid();
  const at::Tensor y = x.contiguous().clone();
  float* values = y.mutable_data_ptr<float>();
  for (int64_t i = 0; i < y.numel(); ++i) values[i] = 1 / (1 + std::exp(-values[i]));
  return y;
}

// The choice alone: [T, A] by biased score. In fp64 on the host, so that it is the same choice everywhere.
at::Tensor select_biased(const at::Tensor& logits, const at::Tensor& bias, int64_t A) {
  const int64_t T = logits.size(0), E = logits.size(1);
  PUNA_CHECK(bias.dim() == 1 && bias.size(0) == E, "route: a bias of {} for {} experts", bias.numel(), E);
  const c10::NoGradGuard guard;
  const at::Tensor logits_TE = logits.detach().cpu().to(at::kDouble).contiguous();
  const at::Tensor biased_TE = logits_TE.sigmoid() + bias.detach().cpu().to(at::kDouble);
  const at::Tensor selected_TA = at::empty({T, A}, at::kLong);
  const double *l = logits_TE.const_data_ptr<double>(), *b = biased_TE.const_data_ptr<double>();
  int64_t* out = selected_TA.mutable_data_ptr<int64_t>();
  std::vector<int64_t> order(E);
  for (int64_t t = 0; t < T; ++t, l += E, b += E, out += A) {
    std::iota(order.begin(), order.end(), int64_t{0});
    std::partial_sort(order.begin(), order.begin() + A, order.end(),
                      [&](int64_t i, int64_t j) { return std::tuple(b[j], l[j], i) < std::tuple(b[i], l[i], j); });
    std::copy_n(order.begin(), A, out);
  }
  return selected_TA.to(logits.device());
}

}  // namespace

Routing route(const at::Tensor& logits, int64_t experts_per_token, RouterScore score,
              const at::Tensor& selection_bias) {
  const int64_t E = logits.size(1);
  PUNA_CHECK(experts_per_token >= 1 && experts_per_token <= E, "route: {} of {} experts", experts_per_token, E);
  Routing routing;
  at::Tensor top;
  if (selection_bias.defined()) {
    routing.selected = select_biased(logits, selection_bias, experts_per_token);
    top = logits.gather(1, routing.selected);
  } else if (experts_per_token == 1) {
    std::tie(top, routing.selected) = logits.max(1, /*keepdim=*/true);
  } else {
    auto [values, indices] = logits.sort(/*stable=*/true, /*dim=*/1, /*descending=*/true);
    top = values.narrow(1, 0, experts_per_token);
    routing.selected = indices.narrow(1, 0, experts_per_token).contiguous();
  }
  routing.scores =
      score == RouterScore::kSigmoid ? sigmoid_of(wide(top)) : wide(logits).softmax(1).gather(1, routing.selected);
  routing.scores = routing.scores.to(logits.scalar_type());
  group_by_expert(routing, E);
  if (auto* routes = observed_routes()) routes->push_back(routing);
  return routing;
}

at::Tensor load_balance_loss(const at::Tensor& logits, const Routing& routing, RouterScore score) {
  const int64_t E = logits.size(1), N = routing.offsets.back();
  const at::Tensor l = wide(logits);
  // sigmoid / sum of sigmoids, in logarithms: scores that underflow keep their shares.
  const at::Tensor shares_TE = (score == RouterScore::kSigmoid ? at::log_sigmoid(l) : l).softmax(1);
  std::vector<double> fractions;
  for (int64_t e = 0; e < E; ++e)
    fractions.push_back(static_cast<double>(routing.offsets[e + 1] - routing.offsets[e]) / static_cast<double>(N));
  const at::Tensor f_E = at::tensor(fractions, at::kDouble).to(l.device(), l.scalar_type());
  return (shares_TE.mean(0) * f_E).sum() * static_cast<double>(E);
}

at::Tensor router_z_loss(const at::Tensor& logits) { return wide(logits).logsumexp(1).square().mean(); }

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
