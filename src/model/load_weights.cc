#include "model/load_weights.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/parallel_for.h"

namespace puna::model {
namespace {

constexpr int64_t kBlockElements = int64_t{1} << 20;  // that a thread unpacks and packs at a time

int64_t dense_bytes(const arch::ParamRow& row, at::ScalarType dtype) {
  return c10::multiply_integers(row.shape) * static_cast<int64_t>(c10::elementSize(dtype));
}

void pack_block(const checkpoint::ModelSource& source, const arch::ParamRow& row, int64_t matrix, int64_t begin,
                int64_t end, const ops::PackedWeight& packed) {
  const auto& [n, k, format] = packed.shape;
  const kernels::PackedLayout layout = kernels::packed_layout(packed.shape);
  const int64_t rows = end - begin, groups = format.channel_scales ? 1 : layout.blocks;
  std::vector<int8_t> q(rows * k), zeros(format.zeros ? rows * groups : 0);
  std::vector<float> scales(rows * groups);
  int8_t* zeros_or_none = format.zeros ? zeros.data() : nullptr;
  source.read_integers(row, matrix, begin, end, {q.data(), scales.data(), zeros_or_none});
  std::byte* to = packed.at(matrix) + begin / kernels::kTileOutputs * layout.tile_bytes;
  kernels::pack_weights({rows, k, format}, q.data(), scales.data(), zeros_or_none, to);
}

std::shared_ptr<const ops::PackedWeight> pack(const checkpoint::ModelSource& source, const arch::ParamRow& row,
                                              const checkpoint::IntegerRow& integers) {
  const int64_t n = integers.shape.n, tile = kernels::kTileOutputs;
  const auto packed = std::make_shared<ops::PackedWeight>(integers.shape, row.shape.size() == 3, integers.num_matrices);
  // Whole tiles, so that the blocks of a matrix lie one after another.
  const int64_t step = std::max<int64_t>(1, kBlockElements / (integers.shape.k * tile)) * tile;
  const int64_t blocks = (n + step - 1) / step;
  parallel_for(integers.num_matrices * blocks, at::get_num_threads(), [&](int64_t i) {
    const int64_t begin = i % blocks * step;
    pack_block(source, row, i / blocks, begin, std::min(n, begin + step), *packed);
  });
  return packed;
}

}  // namespace

std::optional<checkpoint::IntegerRow> held_integers(const checkpoint::ModelSource& source, const arch::ParamRow& row,
                                                    const LoadOptions& options) {
  const bool wanted = options.weights == WeightForm::kStored && options.device.is_cpu();
  if (!wanted || (options.dtype != at::kFloat && options.dtype != at::kBFloat16)) return std::nullopt;
  return source.integers(row);
}

ops::Weight load_weight(const checkpoint::ModelSource& source, const arch::ParamRow& row, const LoadOptions& options) {
  if (const auto integers = held_integers(source, row, options))
    return {row.name, {}, {}, pack(source, row, *integers)};
  at::Tensor dense = source.load(row, options.dtype).to(options.device);
  PUNA_CHECK(dense.sizes() == at::IntArrayRef(row.shape), "'{}' was loaded in another shape", row.name);
  return {row.name, std::move(dense), {}};
}

WeightBytes weight_bytes(const checkpoint::ModelSource& source, const LoadOptions& options) {
  WeightBytes bytes;
  for (const arch::ParamRow& row : source.rows()) {
    if (const auto integers = held_integers(source, row, options)) {
      bytes.packed += kernels::packed_layout(integers->shape).total_bytes * integers->num_matrices;
      ++bytes.num_packed;
    } else if (source.is_quantised(row)) {
      bytes.dequantised += dense_bytes(row, options.dtype);
      ++bytes.num_dequantised;
    } else {
      bytes.dense += dense_bytes(row, options.dtype);
    }
  }
  return bytes;
}

}  // namespace puna::model
