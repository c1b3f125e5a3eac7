#include "model/load_weights.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/parallel_for.h"
#include "kernels/quantized/isa.h"

namespace puna::model {
namespace {

constexpr int64_t kBlockElements = int64_t{1} << 20;  // that a thread unpacks and packs at a time

/// work(matrix, begin, end) for blocks of outputs, in whole tiles, so that those of a matrix lie one after another.
template <typename Work>
void for_blocks(const ops::PackedWeight& packed, const Work& work) {
  const int64_t n = packed.shapes.n, tile = kernels::kTileOutputs;
  const int64_t step = std::max<int64_t>(1, kBlockElements / (packed.shapes.k * tile)) * tile;
  const int64_t blocks = (n + step - 1) / step;
  parallel_for(packed.shapes.count() * blocks, at::get_num_threads(), [&](int64_t i) {
    const int64_t begin = i % blocks * step;
    work(i / blocks, begin, std::min(n, begin + step));
  });
}

int64_t dense_bytes(const arch::ParamRow& row, at::ScalarType dtype) {
  return c10::multiply_integers(row.shape) * static_cast<int64_t>(c10::elementSize(dtype));
}

void pack_block(const checkpoint::ModelSource& source, const arch::ParamRow& row, int64_t matrix, int64_t begin,
                int64_t end, const ops::PackedWeight& packed) {
  const auto& [n, k, format] = packed.shapes[matrix];
  const kernels::PackedLayout layout = kernels::packed_layout(packed.shapes[matrix]);
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
  const auto packed = std::make_shared<ops::PackedWeight>(integers.shapes, row.shape.size() == 3);
  for_blocks(*packed,
             [&](int64_t matrix, int64_t begin, int64_t end) { pack_block(source, row, matrix, begin, end, *packed); });
  return packed;
}

kernels::WeightShape bf16_shape(const arch::ParamRow& row) {
  const bool routed = row.shape.size() == 3;  // [E, in, out], a linear [out, in]
  return {row.shape[routed ? 2 : 0], row.shape[1], kernels::WeightFormat::bf16()};
}

/// BF16 values of the row's shape, in tiles.
std::shared_ptr<const ops::PackedWeight> pack(const arch::ParamRow& row, const at::Tensor& values) {
  const bool routed = row.shape.size() == 3;
  const kernels::WeightShape shape = bf16_shape(row);
  const int64_t tile_bytes = kernels::packed_layout(shape).tile_bytes;
  const auto packed =
      std::make_shared<ops::PackedWeight>(kernels::WeightShapes(shape, routed ? row.shape[0] : 1), routed);
  const auto* from = static_cast<const uint16_t*>(values.const_data_ptr());
  const int64_t by_output = values.stride(routed ? 2 : 0), by_input = values.stride(1);
  for_blocks(*packed, [&](int64_t matrix, int64_t begin, int64_t end) {
    kernels::pack_floats({end - begin, shape.k, shape.format}, from + matrix * shape.n * shape.k + begin * by_output,
                         by_output, by_input, nullptr, packed->at(matrix) + begin / kernels::kTileOutputs * tile_bytes);
  });
  return packed;
}

/// In FP32 floats are unpacked, as their kernels take rows of BF16; but not experts, which must be the same numbers
/// whether they are in memory or in the file.
bool stays_packed(const arch::ParamRow& row, const checkpoint::PackedRow& packed, const LoadOptions& options) {
  const bool narrow = options.dtype == at::kBFloat16 || !packed.shapes.floats() || row.shape.size() == 3;
  return options.weights == WeightForm::kStored && narrow;
}

bool is_streamed(const arch::ParamRow& row, const std::shared_ptr<experts::ExpertStore>& store) {
  return store && row.kind == arch::ParamKind::kRoutedExperts;
}

/// Rows of the table that hold gate and up of a layer's packed experts, in the order of the store's layers.
std::vector<const arch::ParamRow*> store_layers(const checkpoint::ModelSource& source) {
  std::vector<const arch::ParamRow*> layers;
  for (const arch::ParamRow& row : source.rows()) {
    const checkpoint::PackedRow* packed = row.kind == arch::ParamKind::kRoutedExperts ? source.packed(row) : nullptr;
    if (packed && packed->places[0].offset == 0) layers.push_back(&row);
  }
  return layers;
}

ops::Weight load_packed(const checkpoint::ModelSource& source, const arch::ParamRow& row,
                        const checkpoint::PackedRow& packed, const std::shared_ptr<experts::ExpertStore>& store) {
  const bool routed = row.shape.size() == 3;
  if (is_streamed(row, store)) {
    const auto layers = store_layers(source);
    const auto layer = std::ranges::find_if(layers, [&](const auto* other) { return other->layer == row.layer; });
    std::vector<int64_t> offsets;
    for (const auto& place : packed.places) offsets.push_back(place.offset);
    return {row.name,
            {},
            {},
            nullptr,
            std::make_shared<ops::StreamedExperts>(store, static_cast<int>(layer - layers.begin()), packed.shapes,
                                                   std::move(offsets))};
  }
  std::vector<const std::byte*> matrices;
  for (size_t i = 0; i < packed.places.size(); ++i) matrices.push_back(packed.matrix(i));
  if (!store) {
    const std::shared_ptr<std::byte> owner(packed.map, const_cast<std::byte*>(packed.map->bytes().data()));
    return {row.name, {}, {}, std::make_shared<ops::PackedWeight>(packed.shapes, routed, std::move(matrices), owner)};
  }
  // Beside a store the mapped pages would be the first to go when memory is short, so these are memory of our own.
  const auto own = std::make_shared<ops::PackedWeight>(packed.shapes, routed);
  for (int64_t i = 0; i < packed.shapes.count(); ++i)
    std::copy_n(matrices[i], kernels::packed_layout(packed.shapes[i]).total_bytes, own->at(i));
  return {row.name, {}, {}, own};
}

}  // namespace

std::shared_ptr<experts::ExpertStore> open_store(const checkpoint::ModelSource& source, const LoadOptions& options) {
  const auto layers = store_layers(source);
  if (options.expert_bytes <= 0 || layers.empty()) return nullptr;
  experts::StoreLayout layout;
  for (const arch::ParamRow* row : layers) {
    const checkpoint::PackedRow& packed = *source.packed(*row);
    layout.file = packed.file;
    layout.blocks.emplace_back();
    for (const auto& place : packed.places) layout.blocks.back().push_back({place.block, place.block_bytes});
  }
  return std::make_shared<experts::ExpertStore>(std::move(layout), options.expert_bytes);
}

std::optional<checkpoint::IntegerRow> held_integers(const checkpoint::ModelSource& source, const arch::ParamRow& row,
                                                    const LoadOptions& options) {
  const bool wanted = options.weights == WeightForm::kStored && options.device.is_cpu();
  if (!wanted || (options.dtype != at::kFloat && options.dtype != at::kBFloat16)) return std::nullopt;
  const auto integers = source.integers(row);
  const bool rounds_rows = integers && integers->shapes.floats() && options.dtype != at::kBFloat16;
  return rounds_rows ? std::nullopt : integers;
}

bool held_in_tiles(const arch::ParamRow& row, const LoadOptions& options) {
  if (options.weights != WeightForm::kStored || !options.device.is_cpu() || options.dtype != at::kBFloat16)
    return false;
  return checkpoint::packs_bf16(row) && !kernels::cpu_has_amx_bf16();
}

ops::Weight load_weight(const checkpoint::ModelSource& source, const arch::ParamRow& row, const LoadOptions& options,
                        const std::shared_ptr<experts::ExpertStore>& store) {
  const checkpoint::PackedRow* packed = source.packed(row);
  if (packed && options.device.is_cuda())
    fail(packed->file.string(), "is packed for a CPU; on a GPU use the model that it was packed from");
  if (packed && stays_packed(row, *packed, options)) return load_packed(source, row, *packed, store);
  if (const auto integers = held_integers(source, row, options))
    return {row.name, {}, {}, pack(source, row, *integers)};
  at::Tensor dense = source.load(row, options.dtype).to(options.device);
  PUNA_CHECK(dense.sizes() == at::IntArrayRef(row.shape), "'{}' was loaded in another shape", row.name);
  if (held_in_tiles(row, options)) return {row.name, {}, {}, pack(row, dense.contiguous())};
  return {row.name, std::move(dense), {}};
}

WeightBytes weight_bytes(const checkpoint::ModelSource& source, const LoadOptions& options) {
  WeightBytes bytes;
  for (const arch::ParamRow& row : source.rows()) {
    if (const auto integers = held_integers(source, row, options)) {
      bytes.packed += kernels::packed_bytes(integers->shapes);
      ++bytes.num_packed;
    } else if (const checkpoint::PackedRow* packed = source.packed(row);
               packed && stays_packed(row, *packed, options)) {
      const int64_t of_row = kernels::packed_bytes(packed->shapes);
      bytes.packed += of_row;
      bytes.experts += row.kind == arch::ParamKind::kRoutedExperts ? of_row : 0;
      ++bytes.num_packed;
    } else if (source.is_quantised(row)) {
      bytes.dequantised += dense_bytes(row, options.dtype);
      ++bytes.num_dequantised;
    } else if (held_in_tiles(row, options)) {
      bytes.packed += kernels::packed_layout(bf16_shape(row)).total_bytes * (row.shape.size() == 3 ? row.shape[0] : 1);
      ++bytes.num_packed;
    } else {
      bytes.dense += dense_bytes(row, options.dtype);
    }
  }
  return bytes;
}

}  // namespace puna::model
