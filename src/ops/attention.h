// Causal attention of the last tokens of a span over all of it.
#pragma once

#include <ATen/ATen.h>

namespace puna::ops {

/// Queries q [T, H, K] are the last T of the S positions of k, v [S, G, K]; each sees itself and everything before.
/// Head h uses key head h * G / H, without repeating keys in memory. Returns [T, H * K]. Scores are never held for more
/// than a block of queries, so that memory grows with S and not with T * S.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

}  // namespace puna::ops
