#include "cache/block_pool.h"

#include <limits>

#include "base/error.h"

namespace puna::cache {

BlockPool::BlockPool(int64_t capacity) : capacity_(capacity) {
  PUNA_CHECK(capacity >= 0 && capacity <= std::numeric_limits<BlockId>::max(), "a pool of {} blocks", capacity);
}

BlockPool::Block& BlockPool::at(BlockId id) {
  PUNA_CHECK(id >= 0 && static_cast<size_t>(id) < blocks_.size(), "block {} of {} ever used", id, blocks_.size());
  return blocks_[static_cast<size_t>(id)];
}

std::optional<BlockId> BlockPool::allocate() {
  BlockId id;
  if (!free_.empty()) {
    id = free_.back();
    free_.pop_back();
  } else if (static_cast<int64_t>(blocks_.size()) < capacity_) {
    id = static_cast<BlockId>(blocks_.size());
    blocks_.emplace_back();
  } else if (!unused_.empty()) {
    id = unused_.front();
    unused_.pop_front();
    by_name_.erase(*at(id).name);
    at(id).name.reset();
    ++evictions_;
  } else {
    return std::nullopt;
  }
  at(id).references = 1;
  ++num_used_;
  return id;
}

void BlockPool::retain(BlockId id) {
  PUNA_CHECK(at(id).references > 0, "block {} is not in use", id);
  ++at(id).references;
}

void BlockPool::release(BlockId id) {
  Block& block = at(id);
  PUNA_CHECK(block.references > 0, "block {} is not in use", id);
  if (--block.references > 0) return;
  --num_used_;
  if (block.name)
    block.unused = unused_.insert(unused_.end(), id);
  else
    free_.push_back(id);
}

BlockId BlockPool::publish(BlockId id, const PrefixHash& name) {
  Block& block = at(id);
  PUNA_CHECK(block.references > 0, "block {} is not in use", id);
  const auto [entry, added] = by_name_.emplace(name, id);
  if (added) {
    PUNA_CHECK(!block.name, "block {} has another name already", id);
    block.name = name;
  }
  return entry->second;
}

std::optional<BlockId> BlockPool::acquire(const PrefixHash& name) {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) return std::nullopt;
  Block& block = at(found->second);
  if (block.references++ == 0) {
    unused_.erase(block.unused);
    ++num_used_;
  }
  return found->second;
}

}  // namespace puna::cache
