// Products with packed weights: rows are rounded to INT8 or BF16 once for all weights that take them. No gradients.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/quantized/matmul.h"
#include "ops/moe.h"
#include "ops/weight.h"

namespace puna::ops {

/// Throws Error when a gradient would have to pass from the product back to x.
void check_no_gradient(const at::Tensor& x, const Weight& weight);

/// Memory of quantised rows [rows, k].
struct RowBuffer {
  RowBuffer(int64_t num_rows, int64_t k);
  at::Tensor bytes;
  kernels::QuantizedRows rows;
};

/// Rows x [T, K], FP32 or BF16, rounded once for each form that a product asks for.
class QuantizedInput {
 public:
  explicit QuantizedInput(const at::Tensor& x);
  const kernels::QuantizedRows& rows();
  const uint16_t* bf16();  // [T, K]

 private:
  at::Tensor x_, bf16_;
  std::optional<RowBuffer> buffer_;
};

/// Several products, whose work is shared out among LibTorch's threads together.
void multiply(std::span<const kernels::MatmulProblem> problems);

/// x W^T of each, [T, out] in x's dtype, without the adapters.
std::vector<at::Tensor> packed_linears(const at::Tensor& x, const std::vector<const Weight*>& weights);

/// Rows sorted by expert, as grouped_linear(), without the adapters.
at::Tensor packed_grouped_linear(const at::Tensor& x, const Weight& weight, const std::vector<int64_t>& offsets);

/// A feed-forward layer of packed weights: rows of x times gate and up, SwiGLU, times down.
struct PackedFeedForward {
  std::vector<const PackedWeight*> gate_up;  // two of them, or one of both
  const PackedWeight* down = nullptr;
  std::vector<int64_t> offsets;       // [E + 1] rows of each expert
  std::vector<int32_t> tokens;        // [N] row of x; empty: row r
  std::vector<float> input_factors;   // [N], of x; empty: 1
  std::vector<float> output_factors;  // [N]; empty: 1
  at::Tensor out;                     // [N, D] FP32 or BF16, to be filled
};

/// All of them for the same x, piece by piece, so that what lies between the products stays small.
void run(std::span<const PackedFeedForward> layers, QuantizedInput& x);

/// Whether the weights are packed and have no adapters.
bool are_packed(std::initializer_list<const Weight*> weights);

}  // namespace puna::ops
