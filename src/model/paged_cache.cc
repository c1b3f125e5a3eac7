#include "model/paged_cache.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/attention/attention.h"
#include "ops/share_out.h"

namespace puna::model {
namespace {

constexpr int64_t kBlock = PagedCache::kPositions;

// The blocks that a layer of this kind reads, the position at which the first begins, and what is stored already.
struct Blocks {
  std::span<const int32_t> ids;
  int64_t begin, stored;
};

Blocks blocks_of(bool chunked, const PageTable& table) {
  if (chunked) return {table.chunk, table.chunk_base, table.chunk_stored};
  return {table.global, 0, table.global_stored};
}

void check_range(const Blocks& blocks, int64_t first, int64_t end) {
  PUNA_CHECK(first >= blocks.begin && end <= blocks.begin + std::ssize(blocks.ids) * kBlock,
             "positions {} to {} in {} blocks from {} on", first, end, blocks.ids.size(), blocks.begin);
}

// Runs of positions within one block: work(block, offset in it, first position, positions).
template <typename Work>
void for_each_run(const Blocks& blocks, int64_t first, int64_t end, const Work& work) {
  for (int64_t p = first; p < end;) {
    const int64_t offset = (p - blocks.begin) % kBlock, count = std::min(kBlock - offset, end - p);
    work(blocks.ids[static_cast<size_t>((p - blocks.begin) / kBlock)], offset, p, count);
    p += count;
  }
}

kernels::CacheShape shape_of(const arch::TextConfig& config, const PageFormat& format) {
  return {.type = format.type.value_or(kernels::CacheType::Float32),
          .kv_heads = config.num_key_value_heads,
          .width = config.head_dim,
          .block_size = kBlock};
}

}  // namespace

PageFormat PageFormat::of(at::ScalarType dtype, at::Device device, bool int8) {
  PageFormat format{device, dtype, std::nullopt};
  if (device.is_cpu() && dtype == at::kFloat) format.type = kernels::CacheType::Float32;
  if (device.is_cpu() && dtype == at::kBFloat16) format.type = kernels::CacheType::Bfloat16;
  if (int8 && !format.type) fail("cache", "keys and values in INT8 need the CPU and BF16 or FP32 compute");
  if (int8) format.type = kernels::CacheType::Int8;
  return format;
}

PageBytes page_bytes(const arch::TextConfig& config, const PageFormat& format) {
  int64_t per_layer =
      2 * config.num_key_value_heads * config.head_dim * kBlock * static_cast<int64_t>(c10::elementSize(format.dtype));
  if (format.type) per_layer = 2 * kernels::cache_layout(shape_of(config, format)).block_bytes;
  PageBytes bytes;
  for (const arch::LayerPlan& plan : arch::layer_plan(config)) (plan.chunked ? bytes.chunk : bytes.global) += per_layer;
  return bytes;
}

PagedCache::PagedCache(const arch::TextConfig& config, const PageFormat& format, int64_t global_blocks,
                       int64_t chunk_blocks)
    : format_(format), shape_(shape_of(config, format)), chunk_(config.attention_chunk_size) {
  const auto options = at::TensorOptions().device(format.device).dtype(format.type ? at::kByte : format.dtype);
  for (const arch::LayerPlan& plan : arch::layer_plan(config)) {
    std::vector<int64_t> size = {plan.chunked ? chunk_blocks : global_blocks};
    if (format.type)
      size.push_back(kernels::cache_layout(shape_).block_bytes);
    else
      size.insert(size.end(), {shape_.kv_heads, kBlock, shape_.width});
    layers_.push_back({plan.chunked, at::empty(size, options), at::empty(size, options)});
  }
}

PagedCache::BlockBytes PagedCache::block_bytes(int index, int32_t block) const {
  const Layer& layer = layers_.at(static_cast<size_t>(index));
  const auto bytes = [&](const at::Tensor& stored) { return stored.select(0, block).view(-1).view(at::kByte); };
  return {bytes(layer.keys), bytes(layer.values)};
}

void PagedCache::copy_block(bool chunked, int32_t from, int32_t to) {
  for (Layer& layer : layers_) {
    if (layer.chunked != chunked) continue;
    layer.keys.select(0, to).copy_(layer.keys.select(0, from));
    layer.values.select(0, to).copy_(layer.values.select(0, from));
  }
}

void PagedCache::store(int index, const PageTable& table, const at::Tensor& k_TGK, const at::Tensor& v_TGK) {
  const Layer& layer = layers_.at(static_cast<size_t>(index));
  const Blocks blocks = blocks_of(layer.chunked, table);
  const int64_t end = table.length + k_TGK.size(0), begin = std::max(table.length, blocks.stored);
  if (begin >= end) return;
  check_range(blocks, begin, end);
  const at::Tensor k = k_TGK.narrow(0, begin - table.length, end - begin).contiguous();
  const at::Tensor v = v_TGK.narrow(0, begin - table.length, end - begin).contiguous();
  if (format_.type) {
    const int64_t stride = shape_.kv_heads * shape_.width;
    kernels::write_kv(shape_, layer.pool(), {blocks.ids.data(), blocks.begin}, begin, end - begin,
                      {k.const_data_ptr(), v.const_data_ptr(), stride, stride, k.scalar_type() == at::kBFloat16});
    return;
  }
  for_each_run(blocks, begin, end, [&](int32_t block, int64_t offset, int64_t first, int64_t count) {
    const auto put = [&](const at::Tensor& stored, const at::Tensor& rows_TGK) {
      stored.select(0, block).narrow(1, offset, count).copy_(rows_TGK.narrow(0, first - begin, count).transpose(0, 1));
    };
    put(layer.keys, k);
    put(layer.values, v);
  });
}

PagedCache::Rows PagedCache::gather(int index, const PageTable& table, int64_t first, int64_t end) const {
  const Layer& layer = layers_.at(static_cast<size_t>(index));
  const Blocks blocks = blocks_of(layer.chunked, table);
  check_range(blocks, first, end);
  const auto options = at::TensorOptions().device(format_.device).dtype(format_.type ? at::kFloat : format_.dtype);
  const at::Tensor keys = at::empty({end - first, shape_.kv_heads, shape_.width}, options);
  const at::Tensor values = at::empty_like(keys);
  if (format_.type) {
    kernels::read_kv(shape_, layer.pool(), {blocks.ids.data(), blocks.begin}, first, end - first,
                     keys.mutable_data_ptr<float>(), values.mutable_data_ptr<float>());
    return {keys.to(format_.dtype), values.to(format_.dtype)};
  }
  for_each_run(blocks, first, end, [&](int32_t block, int64_t offset, int64_t position, int64_t count) {
    const auto get = [&](const at::Tensor& stored, const at::Tensor& rows_SGK) {
      rows_SGK.narrow(0, position - first, count)
          .copy_(stored.select(0, block).narrow(1, offset, count).transpose(0, 1));
    };
    get(layer.keys, keys);
    get(layer.values, values);
  });
  return {keys, values};
}

at::Tensor PagedCache::attend(int index, const at::Tensor& q_THK, std::span<const PageTable> tables,
                              std::span<const int64_t> row_begin) const {
  PUNA_CHECK(has_attention() && row_begin.size() == tables.size() + 1, "{} row bounds for {} sequences",
             row_begin.size(), tables.size());
  const Layer& layer = layers_.at(static_cast<size_t>(index));
  const at::Tensor q = q_THK.contiguous();
  const at::Tensor out = at::empty({q.size(0), q.size(1) * q.size(2)}, q.options());
  std::vector<kernels::AttentionJob> jobs;
  for (size_t i = 0; i < tables.size(); ++i) {
    const Blocks blocks = blocks_of(layer.chunked, tables[i]);
    const int64_t rows = row_begin[i + 1] - row_begin[i];
    check_range(blocks, tables[i].length, tables[i].length + rows);
    jobs.push_back({{blocks.ids.data(), blocks.begin}, tables[i].length, rows});
  }
  const bool bf16 = q.scalar_type() == at::kBFloat16;
  const kernels::AttentionProblem problem{.shape = shape_,
                                          .pool = layer.pool(),
                                          .query_heads = q.size(1),
                                          .chunk = layer.chunked ? chunk_ : 0,
                                          .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(q.size(2)))),
                                          .jobs = jobs.data(),
                                          .num_jobs = std::ssize(jobs),
                                          .queries = q.const_data_ptr(),
                                          .query_stride = q.size(1) * q.size(2),
                                          .queries_bf16 = bf16,
                                          .out = out.mutable_data_ptr(),
                                          .out_stride = out.size(1),
                                          .out_bf16 = bf16};
  const at::Tensor workspace = at::empty({kernels::attention_workspace_bytes(problem)}, at::kByte);
  kernels::attention(problem, kernels::chosen_isa(), static_cast<std::byte*>(workspace.mutable_data_ptr()),
                     ops::share_out);
  return out;
}

}  // namespace puna::model
