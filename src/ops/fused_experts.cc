#include <torch/csrc/autograd/custom_function.h>

#include <vector>

#include "base/error.h"
#include "ops/fused.h"

namespace puna::ops {
namespace {

using kernels::training_kernels;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

kernels::RoutedRows tables_of(const Routing& routing) {
  return {in<int64_t>(routing.token_of_row), in<int64_t>(routing.choice_of_row), in<int64_t>(routing.row_of_choice),
          routing.selected.size(1)};
}

// work(expert, its rows of `matrices`...) for experts that have rows.
template <typename F>
void for_experts(const Routing& routing, const F& work) {
  for (size_t e = 0; e + 1 < routing.offsets.size(); ++e) {
    const int64_t begin = routing.offsets[e], rows = routing.offsets[e + 1] - begin;
    if (rows > 0)
      work(static_cast<int64_t>(e), [=](const at::Tensor& matrix) { return matrix.narrow(0, begin, rows); });
  }
}

// `into` holds every expert's slice: those without rows are zero.
at::Tensor slices_like(const at::Tensor& weight, const Routing& routing) {
  at::Tensor into = at::empty_like(weight);
  for (size_t e = 0; e + 1 < routing.offsets.size(); ++e)
    if (routing.offsets[e] == routing.offsets[e + 1]) into.select(0, static_cast<int64_t>(e)).zero_();
  return into;
}

// 16-bit products go through fp32: the library would compile a kernel for each new number of rows.
void multiply(const at::Tensor& into, const at::Tensor& a, const at::Tensor& b) {
  at::Tensor result = into;
  if (at::isReducedFloatingType(a.scalar_type())) {
    result.copy_(at::mm(a.to(at::kFloat), b.to(at::kFloat)));
    return;
  }
  at::mm_out(result, a, b);
}

class Experts : public torch::autograd::Function<Experts> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_TD, const at::Tensor& scores_in,
                            const at::Tensor& gate_up, const at::Tensor& down, const Routing& routing) {
    const at::Tensor x = x_TD.contiguous(), scores = scores_in.contiguous();
    const int64_t N = routing.offsets.back(), D = x.size(1), F = down.size(1);
    const at::Tensor rows_ND = scaled_rows(x, scores, routing), products = at::empty({N, 2 * F}, x.options());
    for_experts(routing, [&](int64_t e, const auto& part) { multiply(part(products), part(rows_ND), gate_up[e]); });
    const at::Tensor gated_NF = at::empty({N, F}, x.options());
    with_stored_type(x, [&]<typename S> {
      for_rows(N, F, [&](int64_t begin, int64_t end) {
        const S* gate = in<S>(products) + begin * 2 * F;
        training_kernels<S>().swiglu(gate, gate + F, end - begin, F, 2 * F, out<S>(gated_NF) + begin * F);
      });
    });
    for_experts(routing, [&](int64_t e, const auto& part) { multiply(part(rows_ND), part(gated_NF), down[e]); });
    ctx->save_for_backward({x, scores, gate_up, down, products});
    ctx->saved_data["routing"] = hold(routing);
    if (routing.sorted) return rows_ND;
    const at::Tensor y = at::empty_like(x);
    with_stored_type(x, [&]<typename S> {
      for_rows(x.size(0), D, [&](int64_t begin, int64_t end) {
        training_kernels<S>().combine(in<S>(rows_ND), tables_of(routing), begin, end, D, out<S>(y));
      });
    });
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const Routing& routing = held<Routing>(ctx->saved_data["routing"]);
    const at::Tensor &x = saved[0], &scores = saved[1], &gate_up = saved[2], &down = saved[3], &products = saved[4];
    const int64_t N = routing.offsets.back(), D = x.size(1), F = down.size(1);
    const at::Tensor dy_ND = sorted_rows(gradients[0].contiguous(), routing), dgated = at::empty({N, F}, x.options());
    for_experts(routing, [&](int64_t e, const auto& part) { multiply(part(dgated), part(dy_ND), down[e].t()); });
    const at::Tensor dproducts = at::empty_like(products), gated_NF = at::empty_like(dgated);
    with_stored_type(x, [&]<typename S> {
      for_rows(N, F, [&](int64_t begin, int64_t end) {
        const S* gate = in<S>(products) + begin * 2 * F;
        S* dgate = out<S>(dproducts) + begin * 2 * F;
        training_kernels<S>().swiglu_backward(gate, gate + F, in<S>(dgated) + begin * F, end - begin, F, 2 * F, dgate,
                                              dgate + F, out<S>(gated_NF) + begin * F);
      });
    });
    variable_list result(5);
    if (ctx->needs_input_grad(3)) {
      result[3] = slices_like(down, routing);
      for_experts(routing,
                  [&](int64_t e, const auto& part) { multiply(result[3][e], part(gated_NF).t(), part(dy_ND)); });
    }
    const at::Tensor rows_ND = scaled_rows(x, scores, routing);
    if (ctx->needs_input_grad(2)) {
      result[2] = slices_like(gate_up, routing);
      for_experts(routing,
                  [&](int64_t e, const auto& part) { multiply(result[2][e], part(rows_ND).t(), part(dproducts)); });
    }
    for_experts(routing,
                [&](int64_t e, const auto& part) { multiply(part(rows_ND), part(dproducts), gate_up[e].t()); });
    result[0] = at::empty_like(x);
    result[1] = at::empty_like(scores);
    with_stored_type(x, [&]<typename S> {
      for_rows(x.size(0), D, [&](int64_t begin, int64_t end) {
        training_kernels<S>().combine_scaled(in<S>(rows_ND), in<S>(x), in<S>(scores), tables_of(routing), begin, end, D,
                                             out<S>(result[0]), out<S>(result[1]));
      });
    });
    return result;
  }

 private:
  static at::Tensor scaled_rows(const at::Tensor& x, const at::Tensor& scores, const Routing& routing) {
    const int64_t N = routing.offsets.back(), D = x.size(1);
    const at::Tensor rows_ND = at::empty({N, D}, x.options());
    with_stored_type(x, [&]<typename S> {
      for_rows(N, D, [&](int64_t begin, int64_t end) {
        training_kernels<S>().gather_scaled(in<S>(x), in<S>(scores), tables_of(routing), begin, end, D,
                                            out<S>(rows_ND));
      });
    });
    return rows_ND;
  }

  static at::Tensor sorted_rows(const at::Tensor& x, const Routing& routing) {
    if (routing.sorted) return x;
    const int64_t N = routing.offsets.back(), D = x.size(1);
    const at::Tensor rows_ND = at::empty({N, D}, x.options());
    with_stored_type(x, [&]<typename S> {
      for_rows(N, D, [&](int64_t begin, int64_t end) {
        training_kernels<S>().gather(in<S>(x), tables_of(routing), begin, end, D, out<S>(rows_ND));
      });
    });
    return rows_ND;
  }
};

}  // namespace

at::Tensor fused_experts(const at::Tensor& x, const Routing& routing, const at::Tensor& gate_up,
                         const at::Tensor& down) {
  PUNA_CHECK(gate_up.dim() == 3 && down.dim() == 3 && gate_up.size(1) == x.size(1) && down.size(2) == x.size(1) &&
                 gate_up.size(2) == 2 * down.size(1) && routing.selected.size(0) == x.size(0) &&
                 static_cast<int64_t>(routing.offsets.size()) == down.size(0) + 1,
             "experts: {} rows of {} columns do not fit the weights", x.size(0), x.size(1));
  return Experts::apply(x, routing.scores, gate_up, down, routing);
}

}  // namespace puna::ops
