// Rotary position embedding on interleaved pairs (2j, 2j+1), as Llama 4 checkpoints store queries and keys (SPEC 3).
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace puna::ops {

/// theta^(-2j / rotary_dim) for j < rotary_dim / 2, as fp32 arithmetic gives them: the numbers that the released
/// weights were trained with.
std::vector<double> rope_frequencies(double theta, int64_t rotary_dim);

/// e^(i p f_j) as complex64 [T, 1, K/2], for a model of `dtype` kDouble as complex128. Angles are computed in fp64, so
/// that position 10M is as exact as position 1.
at::Tensor rotations(const std::vector<int64_t>& positions, const std::vector<double>& frequencies, at::Device device,
                     at::ScalarType dtype = at::kFloat);

/// Rotates x [T, heads, K] (or [B, T, heads, K]) by `rotations` [T, 1, K/2], in fp32 (fp64 x: fp64); the result has x's
/// dtype.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& rotations);

}  // namespace puna::ops
