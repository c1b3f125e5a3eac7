#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "ops/fused.h"
#include "ops/grad.h"

namespace puna::ops {
namespace {

using kernels::training_kernels;
using kernels::Wide;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kNormBlock = 64;  // rows whose share of the weight's gradient is summed first

class RmsNorm : public torch::autograd::Function<RmsNorm> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_TD, const at::Tensor& weight, double eps) {
    const int64_t T = x_TD.size(0), D = x_TD.size(1);
    const at::Tensor x = x_TD.contiguous(), y = at::empty_like(x), scales = at::empty({T}, wide_options(x));
    with_stored_type(x, [&]<typename S> {
      for_rows(T, D, [&](int64_t begin, int64_t end) {
        training_kernels<S>().norm(in<S>(x) + begin * D, in<S>(weight), end - begin, D, eps, out<S>(y) + begin * D,
                                   out<Wide<S>>(scales) + begin);
      });
    });
    ctx->save_for_backward({x, weight, scales});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &scales = saved[2], dy = gradients[0].contiguous();
    const int64_t T = x.size(0), D = x.size(1), blocks = (T + kNormBlock - 1) / kNormBlock;
    const at::Tensor dx = at::empty_like(x), parts = at::empty({std::max<int64_t>(blocks, 1), D}, wide_options(x));
    with_stored_type(x, [&]<typename S> {
      Wide<S>* sums = out<Wide<S>>(parts);
      at::parallel_for(0, blocks, std::max<int64_t>(1, 16384 / (kNormBlock * D)), [&](int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; ++b) {
          const int64_t row = b * kNormBlock, rows = std::min(kNormBlock, T - row);
          training_kernels<S>().norm_backward(in<S>(x) + row * D, in<S>(weight), in<Wide<S>>(scales) + row,
                                              in<S>(dy) + row * D, rows, D, out<S>(dx) + row * D, sums + b * D);
        }
      });
      for (int64_t b = 1; b < blocks; ++b)
        for (int64_t c = 0; c < D; ++c) sums[c] += sums[b * D + c];
    });
    const at::Tensor dweight =
        blocks ? parts[0].to(weight.scalar_type(), /*non_blocking=*/false, /*copy=*/true) : at::zeros_like(weight);
    return {dx, dweight, {}};
  }
};

// sum += a b, or the first term of it.
void add_product(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
  if (sum.defined()) {
    sum.addmm_(a, b);
  } else {
    sum = at::mm(a, b);
  }
}

class Linears : public torch::autograd::Function<Linears> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x, at::TensorList weights) {
    variable_list saved = weights.vec(), products;
    for (const at::Tensor& w : weights) products.push_back(at::mm(x, w.t()));
    saved.push_back(x);
    ctx->save_for_backward(saved);
    ctx->set_materialize_grads(false);
    return products;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& x = saved.back();
    variable_list result(saved.size());
    for (size_t i = 0; i + 1 < saved.size(); ++i) {
      if (!gradients[i].defined()) continue;
      if (ctx->needs_input_grad(0)) add_product(result[0], gradients[i], saved[i]);
      if (ctx->needs_input_grad(i + 1)) result[i + 1] = at::mm(gradients[i].t(), x);
    }
    return result;
  }
};

at::Tensor gated(const at::Tensor& gate, const at::Tensor& up) {
  const int64_t T = gate.size(0), F = gate.size(1);
  const at::Tensor y = at::empty_like(gate);
  with_stored_type(gate, [&]<typename S> {
    for_rows(T, F, [&](int64_t begin, int64_t end) {
      training_kernels<S>().swiglu(in<S>(gate) + begin * F, in<S>(up) + begin * F, end - begin, F, F,
                                   out<S>(y) + begin * F);
    });
  });
  return y;
}

class FeedForward : public torch::autograd::Function<FeedForward> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& gate, const at::Tensor& up,
                            const at::Tensor& down) {
    const at::Tensor g = at::mm(x, gate.t()), u = at::mm(x, up.t());
    ctx->save_for_backward({x, gate, up, down, g, u});
    return at::mm(gated(g, u), down.t());
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &g = saved[4], &u = saved[5], &dy = gradients[0];
    const int64_t T = g.size(0), F = g.size(1);
    const at::Tensor dproduct = at::mm(dy, saved[3]), dg = at::empty_like(g), du = at::empty_like(u);
    const at::Tensor product = at::empty_like(g);
    with_stored_type(g, [&]<typename S> {
      for_rows(T, F, [&](int64_t begin, int64_t end) {
        const int64_t at = begin * F;
        training_kernels<S>().swiglu_backward(in<S>(g) + at, in<S>(u) + at, in<S>(dproduct) + at, end - begin, F, F,
                                              out<S>(dg) + at, out<S>(du) + at, out<S>(product) + at);
      });
    });
    variable_list result(4);
    if (ctx->needs_input_grad(0)) {
      add_product(result[0], dg, saved[1]);
      add_product(result[0], du, saved[2]);
    }
    if (ctx->needs_input_grad(1)) result[1] = at::mm(dg.t(), x);
    if (ctx->needs_input_grad(2)) result[2] = at::mm(du.t(), x);
    if (ctx->needs_input_grad(3)) result[3] = at::mm(dy.t(), product);
    return result;
  }
};

}  // namespace

bool has_kernels(const at::Tensor& x) {
  const at::ScalarType dtype = x.scalar_type();
  return x.is_cpu() && (dtype == at::kFloat || dtype == at::kDouble || dtype == at::kBFloat16);
}

bool can_fuse(const at::Tensor& x, std::initializer_list<const Weight*> weights) {
  const at::ScalarType dtype = x.scalar_type();
  if (!recording() || !has_kernels(x)) return false;
  return std::ranges::all_of(weights, [&](const Weight* w) {
    return !w->packed && w->adapters.empty() && w->dense.scalar_type() == dtype && w->dense.is_contiguous();
  });
}

at::Tensor fused_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return RmsNorm::apply(x, weight, eps);
}

std::vector<at::Tensor> fused_linears(const at::Tensor& x, const std::vector<at::Tensor>& weights) {
  return Linears::apply(x, at::TensorList(weights));
}

at::Tensor fused_feed_forward(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& up,
                              const at::Tensor& down) {
  return FeedForward::apply(x, gate, up, down);
}

}  // namespace puna::ops
