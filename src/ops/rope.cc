#include "ops/rope.h"

#include "base/error.h"

namespace puna::ops {

std::vector<double> rope_frequencies(double theta, int64_t rotary_dim) {
  const at::Tensor exponents = at::arange(0, rotary_dim, 2, at::kFloat) / static_cast<double>(rotary_dim);
  const at::Tensor frequencies = at::pow(theta, exponents).reciprocal().to(at::kDouble);
  const double* data = frequencies.const_data_ptr<double>();
  return {data, data + frequencies.numel()};
}

at::Tensor rotations(const std::vector<int64_t>& positions, const std::vector<double>& frequencies, at::Device device,
                     at::ScalarType dtype) {
  const auto num_positions = static_cast<int64_t>(positions.size());
  const auto pairs = static_cast<int64_t>(frequencies.size());
  const at::Tensor p = at::tensor(positions, at::kLong).to(at::kDouble);
  const at::Tensor f = at::tensor(frequencies, at::kDouble);
  const at::Tensor angles = at::outer(p, f);
  const at::ScalarType wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor cis = at::complex(angles.cos().to(wide), angles.sin().to(wide));
  return cis.view({num_positions, 1, pairs}).to(device);
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& rotations) {
  PUNA_CHECK(x.size(-1) == 2 * rotations.size(-1) && x.size(-3) == rotations.size(0),
             "rotate: heads of {} for {} pairs, {} tokens for {} positions", x.size(-1), rotations.size(-1), x.size(-3),
             rotations.size(0));
  const bool wide = x.scalar_type() == at::kDouble;
  const at::Tensor pairs = at::view_as_complex((wide ? x : x.to(at::kFloat)).unflatten(-1, {-1, 2}));
  return at::view_as_real(pairs * rotations).flatten(-2).to(x.scalar_type());
}

}  // namespace puna::ops
