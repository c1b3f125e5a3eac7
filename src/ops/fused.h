// Steps of a block as single nodes of the autograd graph over the kernels of kernels/training. They are for recording
// on the CPU; can_fuse() says whether one may be used, and the plain ops remain for everything else.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/training/kernels.h"
#include "ops/moe.h"
#include "ops/weight.h"

namespace puna::ops {

/// Whether x lies on the CPU in a type that kernels/training computes in.
bool has_kernels(const at::Tensor& x);

/// A gradient is recorded, everything lies on the CPU in x's dtype (fp32, fp64 or bf16), and no weight has adapters.
bool can_fuse(const at::Tensor& x, std::initializer_list<const Weight*> weights = {});

/// x [T, D] normalised and multiplied by weight [D], as rms_norm().
at::Tensor fused_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

/// x w^T for each weight: one node, whose backward adds the gradients of x up as it goes.
std::vector<at::Tensor> fused_linears(const at::Tensor& x, const std::vector<at::Tensor>& weights);

/// down(silu(gate x) * up x). Keeps the two products; their gated product is computed again in backward.
at::Tensor fused_feed_forward(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& up,
                              const at::Tensor& down);

/// What happens to queries and keys before they meet.
struct HeadPreparation {
  at::Tensor rotations;  // [T, 1, K/2] complex; undefined: none
  at::Tensor factors;    // of queries, [T, 1, 1]; undefined: none. Not with a norm
  double eps = -1;       // of the norm of each head; negative: none
};

/// Queries, or keys, on their way into attention: [T, heads * width], rotated, normalised, scaled. Any device; without
/// a gradient, in FP32 on the CPU, one pass of a kernel. In BF16 each step is rounded, as transformers does.
at::Tensor prepared_heads(const at::Tensor& x, const HeadPreparation& preparation, bool queries, int64_t width);

/// Rows of one sequence that attend among themselves, causally. Together the spans cover every row once.
struct RowSpan {
  int64_t row, num_rows;
};

/// q [T, H * K], k and v [T, G * K] -> [T, H * K]. Keeps prepared queries and keys; scores are computed again in
/// backward. Head h uses key head h * G / H.
at::Tensor fused_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t width,
                           const HeadPreparation& preparation, const std::vector<RowSpan>& spans);

/// The routed experts for scores on the input: x [T, D] -> sum over each token's experts of down(swiglu(gate_up(s x))).
/// gate_up [E, D, 2F], down [E, F, D]. Experts without rows are not read, and their gradient is exactly zero.
at::Tensor fused_experts(const at::Tensor& x, const Routing& routing, const at::Tensor& gate_up,
                         const at::Tensor& down);

/// Anything kept in a node beside tensors.
template <typename T>
struct Held : torch::CustomClassHolder {
  explicit Held(T v) : value(std::move(v)) {}
  T value;
};

template <typename T>
c10::IValue hold(T value) {
  return c10::IValue::make_capsule(c10::make_intrusive<Held<T>>(std::move(value)));
}

template <typename T>
T& held(const c10::IValue& value) {
  return static_cast<Held<T>*>(value.toCapsule().get())->value;
}

/// work.operator()<S>() for the stored type of x.
template <typename F>
void with_stored_type(const at::Tensor& x, const F& work) {
  switch (x.scalar_type()) {
    case at::kDouble:
      return work.template operator()<double>();
    case at::kBFloat16:
      return work.template operator()<kernels::Bf16>();
    default:
      return work.template operator()<float>();
  }
}

template <typename S>
const S* in(const at::Tensor& x) {
  return x.defined() ? static_cast<const S*>(x.const_data_ptr()) : nullptr;
}
template <typename S>
S* out(const at::Tensor& x) {
  return x.defined() ? static_cast<S*>(x.mutable_data_ptr()) : nullptr;
}

/// The dtype in which x is computed, for statistics.
inline at::TensorOptions wide_options(const at::Tensor& x) {
  return x.options().dtype(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat).requires_grad(false);
}

/// Spreads rows of `width` values over threads, where there are enough of them.
template <typename F>
void for_rows(int64_t rows, int64_t width, const F& work) {
  at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / std::max<int64_t>(width, 1)), work);
}

}  // namespace puna::ops
