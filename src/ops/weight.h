// src/ops: the tensor face of the arithmetic: shape checks, dispatch to kernels or LibTorch, autograd.
// It knows weights and rows, not layers: what a block does with them is src/model.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "experts/store.h"
#include "kernels/quantized/matmul.h"

namespace puna::ops {

/// A low-rank addition to a weight: y += scale * b (a x).
struct LowRank {
  at::Tensor a;  // [r, in]; routed experts [E, r, in]
  at::Tensor b;  // [out, r]; routed experts [E, out, r]
  double scale;
  static constexpr int kAlways = 0;
  int adapter = kAlways;  // the number of one that counts where it is applied (ops/adapters.h) alone
};

/// Integers with scales, or floats, in the layout of kernels/quantized: one matrix [out, in], or one for each routed
/// expert.
struct PackedWeight {
  kernels::WeightShapes shapes;            // n outputs, k inputs, of each matrix
  bool routed;                             // experts, as opposed to a plain linear
  std::vector<const std::byte*> matrices;  // [E], or one
  std::shared_ptr<std::byte> bytes;        // of all

  /// Memory for all matrices, to be filled at at(i). Throws Error for a PUNA_ISA that is not there.
  PackedWeight(kernels::WeightShapes shapes, bool routed);
  /// Of matrices that lie elsewhere, as long as `owner` lives.
  PackedWeight(kernels::WeightShapes shapes, bool routed, std::vector<const std::byte*> matrices,
               std::shared_ptr<std::byte> owner = nullptr);
  std::byte* at(int64_t matrix) const;
  int64_t num_bytes() const;
};

/// Routed experts that stay in a file and are read when rows are routed to them. An expert's two matrices, gate_up and
/// down, are one block of the store.
struct StreamedExperts {
  std::shared_ptr<experts::ExpertStore> store;
  int layer;                     // of the store
  kernels::WeightShapes shapes;  // n outputs, k inputs, of each matrix
  std::vector<int64_t> offsets;  // [E] of the matrix in its block
};

/// What is behind a row of the parameter table: dense values, or packed ones, in memory or in a file; with adapters on
/// top of the first two.
struct Weight {
  std::string name;  // the table's, for errors
  at::Tensor dense;  // [out, in]; routed experts [E, in, out]; undefined when packed
  std::vector<LowRank> adapters;
  std::shared_ptr<const PackedWeight> packed = nullptr;
  std::shared_ptr<const StreamedExperts> streamed = nullptr;

  int64_t inputs() const { return shapes() ? shapes()->k : dense.size(1); }
  int64_t outputs() const { return shapes() ? shapes()->n : dense.dim() == 3 ? dense.size(2) : dense.size(0); }
  bool routed() const { return streamed || (packed ? packed->routed : dense.dim() == 3); }
  int64_t num_experts() const { return shapes() ? shapes()->count() : dense.size(0); }

 private:
  const kernels::WeightShapes* shapes() const {
    return streamed ? &streamed->shapes : packed ? &packed->shapes : nullptr;
  }
};

/// The dense values; Error where they are needed and the weight is packed.
const at::Tensor& dense_of(const Weight& weight);

}  // namespace puna::ops
