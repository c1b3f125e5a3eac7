// src/cache: which block of the attention cache holds what: references, names of prefixes, eviction, forks. Whole
// numbers alone: it knows neither tensors nor models, and never touches a key or a value.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <unordered_map>
#include <vector>

#include "cache/prefix_hash.h"

namespace puna::cache {

/// Positions of a block.
inline constexpr int64_t kBlockTokens = 16;

using BlockId = int32_t;

/// Blocks 0 to capacity - 1. A block is free, in use (references > 0), or cached: named, without references, and kept
/// until its room is needed. free + used + cached = capacity. Memory grows with the blocks ever used.
class BlockPool {
 public:
  explicit BlockPool(int64_t capacity);

  /// A block with one reference and no name; the least recently released cached one when none is free. nullopt: all
  /// are in use.
  std::optional<BlockId> allocate();
  void retain(BlockId id);
  /// The last release of a named block makes it cached, of another one free.
  void release(BlockId id);

  /// Names a block in use. When another block has the name already, that block's id is returned and nothing changes;
  /// else `id`.
  BlockId publish(BlockId id, const PrefixHash& name);
  /// The block of this name, with one more reference; nullopt when there is none.
  std::optional<BlockId> acquire(const PrefixHash& name);
  bool holds(const PrefixHash& name) const { return by_name_.contains(name); }

  int32_t references(BlockId id) const { return blocks_.at(static_cast<size_t>(id)).references; }
  int64_t capacity() const { return capacity_; }
  int64_t num_cached() const { return static_cast<int64_t>(unused_.size()); }
  int64_t num_used() const { return num_used_; }
  int64_t num_free() const { return capacity_ - num_used_ - num_cached(); }
  /// Blocks that allocate() can give: free and cached.
  int64_t available() const { return capacity_ - num_used_; }
  int64_t evictions() const { return evictions_; }

 private:
  struct Block {
    int32_t references = 0;
    std::optional<PrefixHash> name;
    std::list<BlockId>::iterator unused;  // valid while cached
  };

  Block& at(BlockId id);

  int64_t capacity_, num_used_ = 0, evictions_ = 0;
  std::vector<Block> blocks_;  // those ever used
  std::vector<BlockId> free_;  // of those; the last freed is used first
  std::list<BlockId> unused_;  // cached, the first is evicted first
  std::unordered_map<PrefixHash, BlockId> by_name_;
};

}  // namespace puna::cache
