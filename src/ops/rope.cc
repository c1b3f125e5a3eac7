#include "ops/rope.h"

#include "base/error.h"

namespace puna::ops {

at::Tensor rotations(const std::vector<int64_t>& positions, const std::vector<double>& frequencies, at::Device device) {
  const auto num_positions = static_cast<int64_t>(positions.size());
  const auto pairs = static_cast<int64_t>(frequencies.size());
  const at::Tensor p = at::tensor(positions, at::kLong).to(at::kDouble);
  const at::Tensor f = at::tensor(frequencies, at::kDouble);
  const at::Tensor angles = at::outer(p, f);
  const at::Tensor cis = at::complex(angles.cos().to(at::kFloat), angles.sin().to(at::kFloat));
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
