// Products with a Weight: plain rows, and rows grouped by expert. Packed weights take rows of INT8 per group, or of
// BF16.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "ops/weight.h"

namespace puna::ops {

/// [T, in] -> [T, out]: x W^T, plus the weight's adapters, plus `bias` [out] when defined.
at::Tensor linear(const at::Tensor& x, const Weight& weight, const at::Tensor& bias = {});

/// The same for several weights of one x.
std::vector<at::Tensor> linears(const at::Tensor& x, const std::vector<const Weight*>& weights);

/// down(silu(gate x) * up x), [T, D] -> [T, D].
at::Tensor feed_forward(const at::Tensor& x, const Weight& gate, const Weight& up, const Weight& down);

/// [N, in] -> [N, out], rows sorted by expert: rows offsets[e] to offsets[e + 1] are multiplied by weight.dense[e]
/// ([E, in, out]). `offsets` has E + 1 entries, from 0 to N. Experts without rows are not touched.
at::Tensor grouped_linear(const at::Tensor& x, const Weight& weight, const std::vector<int64_t>& offsets);

/// silu(gate) * up. May overwrite `gate` when no gradient is recorded.
at::Tensor swiglu(at::Tensor gate, const at::Tensor& up);

}  // namespace puna::ops
