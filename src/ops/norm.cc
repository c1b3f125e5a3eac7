#include "ops/norm.h"

#include "ops/fused.h"
#include "ops/grad.h"

namespace puna::ops {

at::Tensor unit_rms(const at::Tensor& x, double eps) {
  const at::Tensor wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
  at::Tensor scale = wide.square().mean(-1, /*keepdim=*/true);
  scale = recording() ? (scale + eps).rsqrt() : scale.add_(eps).rsqrt_();
  return (wide * scale).to(x.scalar_type());
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (x.dim() == 2 && weight.scalar_type() == x.scalar_type() && can_fuse(x)) return fused_rms_norm(x, weight, eps);
  at::Tensor unit = unit_rms(x, eps);
  return recording() ? unit * weight : unit.mul_(weight);
}

}  // namespace puna::ops
