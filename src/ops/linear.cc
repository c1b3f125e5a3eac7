#include "ops/linear.h"

#include <algorithm>

#include "base/error.h"
#include "ops/adapters.h"
#include "ops/fused.h"
#include "ops/grad.h"
#include "ops/observe.h"
#include "ops/packed.h"

namespace puna::ops {
namespace {

at::Tensor plus(at::Tensor sum, const at::Tensor& term) { return recording() ? sum + term : sum.add_(term); }

// Small 16-bit products are done in fp32 and rounded once, as oneDNN rounds: its preparation costs more than they do.
bool is_small_and_narrow(const at::Tensor& x, const at::Tensor& w) {
  constexpr int64_t kProducts = int64_t{1} << 17;
  return at::isReducedFloatingType(x.scalar_type()) && x.is_cpu() && x.numel() * w.size(1) <= kProducts;
}

at::Tensor product(const at::Tensor& x, const at::Tensor& w) {
  if (!is_small_and_narrow(x, w)) return at::mm(x, w);
  return at::mm(x.to(at::kFloat), w.to(at::kFloat)).to(x.scalar_type());
}

at::Tensor low_rank(const at::Tensor& x, const at::Tensor& a, const at::Tensor& b, double scale) {
  return product(product(x, a.t()), b.t()) * scale;
}

// The experts' matrices; one node of the autograd graph for all of them, not one full-size gradient for each.
std::vector<at::Tensor> experts_of(const at::Tensor& stacked) { return stacked.unbind(0); }

}  // namespace

at::Tensor linear(const at::Tensor& x, const Weight& weight, const at::Tensor& bias) {
  PUNA_CHECK(x.dim() == 2 && !weight.routed() && x.size(1) == weight.inputs(),
             "linear '{}': x has {} columns, the weight takes {}", weight.name, x.size(-1), weight.inputs());
  if (LinearObserver* looking_on = observer()) looking_on->linear(weight, x);
  if (!bias.defined() && can_fuse(x, {&weight})) return fused_linears(x, {weight.dense})[0];
  at::Tensor y;
  if (weight.packed) {
    y = packed_linears(x, {&weight})[0];
    if (bias.defined()) y = plus(y, bias);
  } else {
    const at::Tensor w = weight.dense.t();
    y = bias.defined() ? at::addmm(bias, x, w) : product(x, w);
  }
  for (const LowRank* low : applied_adapters(weight)) y = plus(y, low_rank(x, low->a, low->b, low->scale));
  return y;
}

std::vector<at::Tensor> linears(const at::Tensor& x, const std::vector<const Weight*>& weights) {
  std::vector<at::Tensor> dense, products;
  for (const Weight* weight : weights)
    if (can_fuse(x, {weight})) dense.push_back(weight->dense);
  if (dense.size() == weights.size()) return fused_linears(x, dense);
  if (std::ranges::all_of(weights, [](const Weight* w) { return are_packed({w}); })) return packed_linears(x, weights);
  for (const Weight* weight : weights) products.push_back(linear(x, *weight));
  return products;
}

at::Tensor feed_forward(const at::Tensor& x, const Weight& gate, const Weight& up, const Weight& down) {
  if (can_fuse(x, {&gate, &up, &down})) return fused_feed_forward(x, gate.dense, up.dense, down.dense);
  if (are_packed({&gate, &up, &down})) {
    check_no_gradient(x, gate);
    PackedFeedForward layer;
    layer.gate_up = {gate.packed.get(), up.packed.get()};
    layer.down = down.packed.get();
    layer.offsets = {0, x.size(0)};
    layer.out = at::empty({x.size(0), down.outputs()}, x.options().requires_grad(false));
    QuantizedInput input(x);
    run(std::span(&layer, 1), input);
    return layer.out;
  }
  const std::vector<at::Tensor> hidden = linears(x, {&gate, &up});
  return linear(swiglu(hidden[0], hidden[1]), down);
}

at::Tensor grouped_linear(const at::Tensor& x, const Weight& weight, const std::vector<int64_t>& offsets) {
  PUNA_CHECK(x.dim() == 2 && weight.routed() && x.size(1) == weight.inputs(),
             "grouped linear '{}': x has {} columns, the experts take {}", weight.name, x.size(-1), weight.inputs());
  const at::Tensor& dense = weight.dense;
  const int64_t num_experts = weight.num_experts();
  PUNA_CHECK(static_cast<int64_t>(offsets.size()) == num_experts + 1 && offsets.back() == x.size(0),
             "grouped linear '{}': {} offsets for {} experts", weight.name, offsets.size(), num_experts);
  if (LinearObserver* looking_on = observer()) looking_on->grouped(weight, x, offsets);
  const bool grad = recording();
  const auto experts = grad && !weight.packed ? experts_of(dense) : std::vector<at::Tensor>();
  const std::vector<const LowRank*> adapters = applied_adapters(weight);
  std::vector<std::pair<std::vector<at::Tensor>, std::vector<at::Tensor>>> factors;
  if (grad)
    for (const LowRank* low : adapters) factors.emplace_back(experts_of(low->a), experts_of(low->b));

  std::vector<at::Tensor> pieces;
  at::Tensor out;
  if (weight.packed) {
    out = packed_grouped_linear(x, weight, offsets);
    if (adapters.empty()) return out;
  } else if (!grad) {
    out = at::empty({x.size(0), dense.size(2)}, x.options());
  }
  for (int64_t e = 0; e < num_experts; ++e) {
    const int64_t rows = offsets[e + 1] - offsets[e];
    if (rows == 0) continue;
    const at::Tensor x_e = rows == x.size(0) ? x : x.narrow(0, offsets[e], rows);
    at::Tensor y_e;
    if (weight.packed) {
      y_e = out.narrow(0, offsets[e], rows);
    } else if (grad) {
      y_e = product(x_e, experts[e]);
    } else {
      const at::Tensor w_e = dense.select(0, e);
      y_e = out.narrow(0, offsets[e], rows);
      if (is_small_and_narrow(x_e, w_e)) {
        y_e.copy_(product(x_e, w_e));
      } else {
        at::mm_out(y_e, x_e, w_e);
      }
    }
    for (size_t i = 0; i < adapters.size(); ++i) {
      const at::Tensor a = grad ? factors[i].first[e] : adapters[i]->a.select(0, e);
      const at::Tensor b = grad ? factors[i].second[e] : adapters[i]->b.select(0, e);
      y_e = plus(y_e, low_rank(x_e, a, b, adapters[i]->scale));
    }
    if (grad) pieces.push_back(y_e);
  }
  return grad ? at::cat(pieces) : out;
}

at::Tensor swiglu(at::Tensor gate, const at::Tensor& up) {
  return recording() ? at::silu(gate) * up : at::silu_(gate).mul_(up);
}

}  // namespace puna::ops
