#include "ops/norm.h"

#include "ops/fused.h"
#include "ops/grad.h"

namespace puna::ops {

namespace {

at::Tensor norm_rows(const at::Tensor& x_TD, const at::Tensor& weight, double eps) {
  const int64_t T = x_TD.size(0), D = x_TD.size(1);
  const at::Tensor x = x_TD.contiguous(), y = at::empty_like(x), scales = at::empty({T}, wide_options(x));
  with_stored_type(x, [&]<typename S> {
    for_rows(T, D, [&](int64_t begin, int64_t end) {
      kernels::training_kernels<S>().norm(in<S>(x) + begin * D, in<S>(weight), end - begin, D, eps,
                                          out<S>(y) + begin * D, out<kernels::Wide<S>>(scales) + begin);
    });
  });
  return y;
}

}  // namespace

at::Tensor unit_rms(const at::Tensor& x, double eps) {
  const at::Tensor wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
  at::Tensor scale = wide.square().mean(-1, /*keepdim=*/true);
  scale = recording() ? (scale + eps).rsqrt() : scale.add_(eps).rsqrt_();
  return (wide * scale).to(x.scalar_type());
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (x.dim() == 2 && weight.scalar_type() == x.scalar_type() && weight.is_contiguous()) {
    if (can_fuse(x)) return fused_rms_norm(x, weight, eps);
    if (!recording() && has_kernels(x)) return norm_rows(x, weight, eps);
  }
  at::Tensor unit = unit_rms(x, eps);
  return recording() ? unit * weight : unit.mul_(weight);
}

}  // namespace puna::ops
