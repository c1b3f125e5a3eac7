#include "ops/experts.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "base/error.h"
#include "ops/fused.h"
#include "ops/grad.h"
#include "ops/linear.h"
#include "ops/packed.h"

namespace puna::ops {
namespace {

// The routed experts as rows of x, with the score where it belongs: gate and up are linear in the score of their input.
PackedFeedForward routed_layer(const Routing& routing, const ExpertWeights& weights, bool score_on_input) {
  PackedFeedForward layer;
  layer.gate_up = {weights.gate_up->packed.get()};
  layer.down = weights.down->packed.get();
  layer.offsets = routing.offsets;
  const int64_t N = routing.offsets.back();
  layer.out = at::empty({N, weights.down->outputs()}, at::kFloat);
  layer.tokens.resize(N);
  const int64_t* token_of_row = routing.sorted ? nullptr : routing.token_of_row.const_data_ptr<int64_t>();
  for (int64_t r = 0; r < N; ++r) layer.tokens[r] = static_cast<int32_t>(token_of_row ? token_of_row[r] : r);
  const at::Tensor scores = gather_scores(routing).to(at::kFloat).contiguous();
  const float* values = scores.const_data_ptr<float>();
  (score_on_input ? layer.input_factors : layer.output_factors).assign(values, values + N);
  return layer;
}

/// The rows of one expert, with its matrices in `block`. Their views are kept in `views`.
PackedFeedForward expert_rows(const PackedFeedForward& all, int64_t expert, const std::byte* block,
                              const ExpertWeights& weights, std::deque<PackedWeight>& views) {
  const int64_t begin = all.offsets[expert], rows = all.offsets[expert + 1] - begin;
  const auto view = [&](const Weight& weight) {
    const StreamedExperts& streamed = *weight.streamed;
    return &views.emplace_back(kernels::WeightShapes(streamed.shapes[expert], 1), /*routed=*/false,
                               std::vector{block + streamed.offsets[expert]});
  };
  const auto part = [&](const auto& values) {
    using Values = std::remove_cvref_t<decltype(values)>;
    return values.empty() ? Values() : Values(values.begin() + begin, values.begin() + begin + rows);
  };
  PackedFeedForward layer;
  layer.gate_up = {view(*weights.gate_up)};
  layer.down = view(*weights.down);
  layer.offsets = {0, rows};
  layer.tokens = part(all.tokens);
  layer.input_factors = part(all.input_factors);
  layer.output_factors = part(all.output_factors);
  layer.out = all.out.narrow(0, begin, rows);
  return layer;
}

/// The routed rows, each expert's as soon as it is there, and `others` with the first of them.
void run_streamed(const PackedFeedForward& routed, const ExpertWeights& weights, std::vector<PackedFeedForward> others,
                  QuantizedInput& input) {
  std::vector<int> needed;
  for (size_t e = 0; e + 1 < routed.offsets.size(); ++e)
    if (routed.offsets[e + 1] > routed.offsets[e]) needed.push_back(static_cast<int>(e));
  const StreamedExperts& streamed = *weights.gate_up->streamed;
  bool first = true;
  streamed.store->visit(streamed.layer, needed, [&](std::span<const experts::ExpertStore::Present> present) {
    std::deque<PackedWeight> views;
    std::vector<PackedFeedForward> layers;
    if (std::exchange(first, false)) {
      if (weights.read_ahead) weights.read_ahead();
      layers = others;
    }
    for (const auto& one : present) layers.push_back(expert_rows(routed, one.expert, one.bytes, weights, views));
    if (!layers.empty()) run(layers, input);
  });
}

PackedFeedForward shared_layer(const at::Tensor& x, const ExpertWeights& weights) {
  PackedFeedForward layer;
  layer.gate_up = {weights.shared_gate->packed.get(), weights.shared_up->packed.get()};
  layer.down = weights.shared_down->packed.get();
  layer.offsets = {0, x.size(0)};
  layer.out = at::empty({x.size(0), layer.down->shapes.n}, at::kFloat);
  return layer;
}

// y[t] = shared[t] + routed rows of t in the order of its choices, in FP32, rounded once.
template <typename S>
void add_up(const at::Tensor& shared_TD, const at::Tensor& routed_ND, const Routing& routing, const at::Tensor& y) {
  const int64_t D = y.size(1), A = routing.selected.size(1);
  const int64_t* row_of_choice = routing.sorted ? nullptr : routing.row_of_choice.const_data_ptr<int64_t>();
  const float *shared = shared_TD.const_data_ptr<float>(), *routed = routed_ND.const_data_ptr<float>();
  S* out_TD = static_cast<S*>(y.mutable_data_ptr());
  for_rows(y.size(0), D, [=](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t c = 0; c < D; ++c) {
        float sum = shared[t * D + c];
        for (int64_t a = 0; a < A; ++a) {
          const int64_t row = row_of_choice ? row_of_choice[t * A + a] : t * A + a;
          sum += routed[row * D + c];
        }
        out_TD[t * D + c] = static_cast<S>(sum);
      }
    }
  });
}

at::Tensor packed_experts(const at::Tensor& x, const Routing& routing, const ExpertWeights& weights,
                          bool score_on_input) {
  check_no_gradient(x, *weights.gate_up);
  PUNA_CHECK(weights.gate_up->inputs() == x.size(1) && weights.gate_up->outputs() == 2 * weights.down->inputs() &&
                 static_cast<int64_t>(routing.offsets.size()) == weights.down->num_experts() + 1,
             "experts '{}': {} columns do not fit", weights.gate_up->name, x.size(1));
  QuantizedInput input(x);
  const PackedFeedForward routed = routed_layer(routing, weights, score_on_input);
  std::vector<PackedFeedForward> layers;
  at::Tensor shared_TD;
  if (are_packed({weights.shared_gate, weights.shared_up, weights.shared_down})) {
    layers.push_back(shared_layer(x, weights));
    shared_TD = layers.back().out;
  } else {
    shared_TD = feed_forward(x, *weights.shared_gate, *weights.shared_up, *weights.shared_down).to(at::kFloat);
  }
  if (weights.gate_up->streamed) {
    run_streamed(routed, weights, std::move(layers), input);
  } else {
    layers.push_back(routed);
    run(layers, input);
  }
  const at::Tensor y = at::empty(x.sizes(), x.options().requires_grad(false));
  if (x.scalar_type() == at::kFloat)
    add_up<float>(shared_TD.contiguous(), routed.out, routing, y);
  else
    add_up<at::BFloat16>(shared_TD.contiguous(), routed.out, routing, y);
  return y;
}

}  // namespace

at::Tensor experts(const at::Tensor& x, const Routing& routing, const ExpertWeights& weights, bool score_on_input) {
  const bool streamed = weights.gate_up->streamed != nullptr;
  if (streamed || are_packed({weights.gate_up, weights.down}))
    return packed_experts(x, routing, weights, score_on_input);
  const at::Tensor shared_TD = feed_forward(x, *weights.shared_gate, *weights.shared_up, *weights.shared_down);
  if (score_on_input && can_fuse(x, {weights.gate_up, weights.down}))
    return shared_TD + fused_experts(x, routing, weights.gate_up->dense, weights.down->dense);
  const at::Tensor scores_N1 = gather_scores(routing);
  at::Tensor rows_ND = gather_rows(x, routing);
  if (score_on_input) rows_ND = rows_ND * scores_N1;
  const std::vector<at::Tensor> halves = grouped_linear(rows_ND, *weights.gate_up, routing.offsets).chunk(2, -1);
  rows_ND = grouped_linear(swiglu(halves[0], halves[1]), *weights.down, routing.offsets);
  if (!score_on_input) rows_ND = rows_ND * scores_N1;
  const at::Tensor routed_TD = combine_rows(rows_ND, routing);
  return recording() ? shared_TD + routed_TD : at::Tensor(shared_TD).add_(routed_TD);
}

}  // namespace puna::ops
