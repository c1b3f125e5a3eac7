// Keys and values of many sequences in blocks of 16 positions; which block is whose is decided elsewhere (src/cache).
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "arch/layer_plan.h"
#include "kernels/attention/cache.h"
#include "model/page_table.h"

namespace puna::model {

/// How keys and values are stored. On the CPU: kernels/attention's layout of this type. Elsewhere, and for FP64:
/// tensors [blocks, G, 16, K].
struct PageFormat {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kBFloat16;                   // of the keys and values that come and go
  std::optional<kernels::CacheType> type = std::nullopt;  // absent: tensors

  /// As the model computes; `int8` stores half the bytes of BF16. Throws Error for INT8 where there is no kernel.
  static PageFormat of(at::ScalarType dtype, at::Device device, bool int8 = false);
};

/// Bytes of the keys and values of 16 positions.
struct PageBytes {
  int64_t global = 0;  // of all global layers
  int64_t chunk = 0;   // of all chunked layers
};
PageBytes page_bytes(const arch::TextConfig& config, const PageFormat& format);

class PagedCache {
 public:
  static constexpr int64_t kPositions = 16;  // of a block

  /// Memory is reserved; on the CPU a block takes room once it is written.
  PagedCache(const arch::TextConfig& config, const PageFormat& format, int64_t global_blocks, int64_t chunk_blocks);

  /// Copies a block of all global or of all chunked layers.
  void copy_block(bool chunked, int32_t from, int32_t to);

  /// Stores the keys and values [T, G, K] of the step's positions, which follow `table.length`.
  void store(int layer, const PageTable& table, const at::Tensor& k_TGK, const at::Tensor& v_TGK);

  struct Rows {
    at::Tensor keys, values;  // [S, G, K]
  };
  /// Keys and values of positions from `first` to `end`, copied together; of the dtype they came in.
  Rows gather(int layer, const PageTable& table, int64_t first, int64_t end) const;

  /// Whether attend() serves this format.
  bool has_attention() const { return format_.type.has_value(); }
  /// Attention of queries [T, H, K] of which sequence i has rows row_begin[i] to row_begin[i + 1], at the positions
  /// from tables[i].length on; their keys and values are stored. Returns [T, H * K]. A row's bits do not depend on the
  /// others.
  at::Tensor attend(int layer, const at::Tensor& q_THK, std::span<const PageTable> tables,
                    std::span<const int64_t> row_begin) const;

  /// The bytes of one block of one layer, keys and values; in the layout of the format.
  struct BlockBytes {
    at::Tensor keys, values;  // uint8, views into the cache
  };
  BlockBytes block_bytes(int layer, int32_t block) const;

  bool chunked(int layer) const { return layers_.at(static_cast<size_t>(layer)).chunked; }
  int num_layers() const { return static_cast<int>(layers_.size()); }
  const PageFormat& format() const { return format_; }

 private:
  struct Layer {
    bool chunked;
    at::Tensor keys, values;  // [blocks, G, 16, K], or [blocks, bytes] uint8
    kernels::CachePool pool() const {
      return {static_cast<std::byte*>(keys.data_ptr()), static_cast<std::byte*>(values.data_ptr())};
    }
  };

  PageFormat format_;
  kernels::CacheShape shape_;
  int64_t chunk_;  // attention_chunk_size
  std::vector<Layer> layers_;
};

}  // namespace puna::model
