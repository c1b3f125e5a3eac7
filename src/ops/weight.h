// src/ops: the tensor face of the arithmetic: shape checks, dispatch to kernels or LibTorch, autograd.
// It knows weights and rows, not layers: what a block does with them is src/model.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

namespace puna::ops {

/// A low-rank addition to a weight: y += scale * b (a x).
struct LowRank {
  at::Tensor a;  // [r, in]; routed experts [E, r, in]
  at::Tensor b;  // [out, r]; routed experts [E, out, r]
  double scale;
};

/// What is behind a row of the parameter table: dense values, with adapters on top.
struct Weight {
  std::string name;  // the table's, for errors
  at::Tensor dense;  // [out, in]; routed experts [E, in, out]
  std::vector<LowRank> adapters;
};

}  // namespace puna::ops
