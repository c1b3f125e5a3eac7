#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "ops/fused.h"
#include "ops/grad.h"
#include "ops/norm.h"
#include "ops/rope.h"

namespace puna::ops {
namespace {

using kernels::training_kernels;
using kernels::Wide;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Spans times key heads, the costly ones first: each is computed by one thread alone, whichever takes it.
struct Plan {
  std::vector<RowSpan> spans;
  int64_t longest = 0;
};

Plan plan_of(const std::vector<RowSpan>& spans) {
  Plan plan{spans, 0};
  std::ranges::stable_sort(plan.spans, [](const RowSpan& a, const RowSpan& b) { return a.num_rows > b.num_rows; });
  for (const RowSpan& span : spans) plan.longest = std::max(plan.longest, span.num_rows);
  return plan;
}

template <typename W, typename F>
void for_items(const Plan& plan, int64_t key_heads, int64_t width, const F& work) {
  const auto count = static_cast<int64_t>(plan.spans.size()) * key_heads;
  std::atomic<int64_t> next = 0;
  at::parallel_for(0, std::min<int64_t>(at::get_num_threads(), count), 1, [&](int64_t begin, int64_t end) {
    if (begin == end) return;
    const auto scratch = std::make_unique_for_overwrite<W[]>(kernels::attention_scratch(plan.longest, width));
    for (int64_t i; (i = next++) < count;) work(plan.spans[i / key_heads], i % key_heads, scratch.get());
  });
}

struct Shape {
  int64_t H, G, K;
};

template <typename S>
kernels::AttentionProblem<S> problem_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                        const Shape& shape, const RowSpan& span, int64_t key_head, Wide<S>* scratch) {
  const int64_t q_at = span.row * shape.H * shape.K, k_at = span.row * shape.G * shape.K;
  return {in<S>(q) + q_at, in<S>(k) + k_at, in<S>(v) + k_at, span.num_rows, shape.H,
          shape.G,         shape.K,         key_head,        scratch};
}

// Rows [begin, end) of x [T, heads * K].
template <typename S>
kernels::HeadRows<S> head_rows(const HeadPreparation& p, bool queries, int64_t begin, int64_t end, int64_t heads,
                               int64_t K) {
  kernels::HeadRows<S> rows = {end - begin, heads, K, nullptr, nullptr, p.eps};
  if (p.rotations.defined()) rows.rotations = in<Wide<S>>(p.rotations) + begin * K;
  if (queries && p.factors.defined()) rows.factors = in<Wide<S>>(p.factors) + begin;
  return rows;
}

bool prepares(const HeadPreparation& p, bool queries) {
  return p.rotations.defined() || p.eps >= 0 || (queries && p.factors.defined());
}

// Prepared rows and, with a norm, the scales of its heads.
std::pair<at::Tensor, at::Tensor> prepare(const at::Tensor& x, const HeadPreparation& p, bool queries, int64_t K) {
  if (!prepares(p, queries)) return {x, {}};
  const int64_t T = x.size(0), heads = x.size(1) / K;
  const at::Tensor y = at::empty_like(x), scales = p.eps >= 0 ? at::empty({T, heads}, wide_options(x)) : at::Tensor();
  with_stored_type(x, [&]<typename S> {
    for_rows(T, heads * K, [&](int64_t begin, int64_t end) {
      Wide<S>* s = scales.defined() ? out<Wide<S>>(scales) + begin * heads : nullptr;
      training_kernels<S>().prepare_heads(in<S>(x) + begin * heads * K, head_rows<S>(p, queries, begin, end, heads, K),
                                          out<S>(y) + begin * heads * K, s);
    });
  });
  return {y, scales};
}

at::Tensor prepare_backward(const at::Tensor& dy, const at::Tensor& y, const at::Tensor& scales,
                            const HeadPreparation& p, bool queries, int64_t K) {
  if (!prepares(p, queries)) return dy;
  const int64_t T = y.size(0), heads = y.size(1) / K;
  const at::Tensor dx = at::empty_like(y);
  with_stored_type(y, [&]<typename S> {
    for_rows(T, heads * K, [&](int64_t begin, int64_t end) {
      const int64_t at = begin * heads * K;
      const Wide<S>* s = scales.defined() ? in<Wide<S>>(scales) + begin * heads : nullptr;
      training_kernels<S>().prepare_heads_backward(in<S>(dy) + at, in<S>(y) + at, s,
                                                   head_rows<S>(p, queries, begin, end, heads, K), out<S>(dx) + at);
    });
  });
  return dx;
}

struct Kept {
  Plan plan;
  HeadPreparation preparation;
  int64_t K;
};

class Attention : public torch::autograd::Function<Attention> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q_in, const at::Tensor& k_in,
                            const at::Tensor& v_in, const Kept& kept) {
    const int64_t K = kept.K;
    const auto [q, q_scales] = prepare(q_in.contiguous(), kept.preparation, true, K);
    const auto [k, k_scales] = prepare(k_in.contiguous(), kept.preparation, false, K);
    const at::Tensor v = v_in.contiguous(), result = at::empty_like(q);
    const Shape shape = {q.size(1) / K, k.size(1) / K, K};
    with_stored_type(q, [&, &q = q, &k = k]<typename S> {
      for_items<Wide<S>>(kept.plan, shape.G, K, [&](const RowSpan& span, int64_t head, Wide<S>* scratch) {
        training_kernels<S>().attention(problem_of<S>(q, k, v, shape, span, head, scratch),
                                        out<S>(result) + span.row * shape.H * K);
      });
    });
    ctx->save_for_backward({q, k, v, q_scales, k_scales});
    ctx->saved_data["kept"] = hold(kept);
    return result;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const Kept& kept = held<Kept>(ctx->saved_data["kept"]);
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], dout = gradients[0].contiguous();
    const at::Tensor dq = at::empty_like(q), dk = at::empty_like(k), dv = at::empty_like(v);
    const Shape shape = {q.size(1) / kept.K, k.size(1) / kept.K, kept.K};
    with_stored_type(q, [&]<typename S> {
      for_items<Wide<S>>(kept.plan, shape.G, kept.K, [&](const RowSpan& span, int64_t head, Wide<S>* scratch) {
        const int64_t q_at = span.row * shape.H * shape.K, k_at = span.row * shape.G * shape.K;
        training_kernels<S>().attention_backward(problem_of<S>(q, k, v, shape, span, head, scratch), in<S>(dout) + q_at,
                                                 out<S>(dq) + q_at, out<S>(dk) + k_at, out<S>(dv) + k_at);
      });
    });
    return {prepare_backward(dq, q, saved[3], kept.preparation, true, kept.K),
            prepare_backward(dk, k, saved[4], kept.preparation, false, kept.K),
            dv,
            {}};
  }
};

}  // namespace

at::Tensor prepared_heads(const at::Tensor& x, const HeadPreparation& p, bool queries, int64_t width) {
  if (!recording() && has_kernels(x) && !at::isReducedFloatingType(x.scalar_type()))
    return prepare(x.contiguous(), p, queries, width).first;
  at::Tensor y = x.unflatten(1, {-1, width});
  if (p.rotations.defined()) y = rotate(y, p.rotations);
  if (p.eps >= 0) y = unit_rms(y, p.eps);
  if (queries && p.factors.defined()) y = (y * p.factors).to(y.scalar_type());
  return y.flatten(1);
}

at::Tensor fused_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t width,
                           const HeadPreparation& preparation, const std::vector<RowSpan>& spans) {
  const int64_t T = q.size(0);
  PUNA_CHECK(k.size(0) == T && v.sizes() == k.sizes() && q.size(1) % k.size(1) == 0 && k.size(1) % width == 0,
             "attention: queries {} x {}, keys {} x {}, heads of {}", T, q.size(1), k.size(0), k.size(1), width);
  PUNA_CHECK(preparation.eps < 0 || !preparation.factors.defined(), "attention: a norm and factors together");
  int64_t rows = 0;
  for (const RowSpan& span : spans) {
    PUNA_CHECK(span.row >= 0 && span.num_rows > 0 && span.row + span.num_rows <= T,
               "attention: a span of {} at {} of {}", span.num_rows, span.row, T);
    rows += span.num_rows;
  }
  PUNA_CHECK(rows == T, "attention: spans of {} rows for {}", rows, T);
  return Attention::apply(q, k, v, Kept{plan_of(spans), preparation, width});
}

}  // namespace puna::ops
