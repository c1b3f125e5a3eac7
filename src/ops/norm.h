// Normalisation without a mean: RMSNorm and its weightless form for queries and keys (SPEC 3).
#pragma once

#include <ATen/ATen.h>

namespace puna::ops {

/// x * rsqrt(mean(x^2) + eps) over the last dimension; statistics and product in fp32, result in x's dtype.
at::Tensor unit_rms(const at::Tensor& x, double eps);

/// unit_rms(x) * weight, the second product in x's dtype. `weight` is [D].
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

}  // namespace puna::ops
