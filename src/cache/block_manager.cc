#include "cache/block_manager.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace puna::cache {
namespace {

int64_t blocks_for(int64_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }

}  // namespace

int64_t CacheShape::global_blocks_of(int64_t tokens) const { return blocks_for(tokens); }

int64_t CacheShape::chunk_blocks_of(int64_t tokens) const {
  if (tokens <= chunk_tokens) return blocks_for(tokens);
  return chunk_tokens % kBlockTokens == 0 ? chunk_tokens / kBlockTokens : chunk_tokens / kBlockTokens + 2;
}

int64_t CacheShape::longest() const {
  const int64_t global = global_blocks * kBlockTokens;
  if (chunk_tokens == 0 || chunk_blocks >= chunk_blocks_of(chunk_tokens + 1)) return global;
  return std::min({global, chunk_tokens, chunk_blocks * kBlockTokens});
}

BlockManager::BlockManager(const CacheShape& shape)
    : shape_(shape), global_(shape.global_blocks), chunk_(shape.chunk_blocks) {}

int64_t BlockManager::attach(SequenceBlocks& s, std::span<const uint64_t> contents, int64_t at_most) {
  PUNA_CHECK(s.global.empty() && s.chunk.empty() && s.length == 0, "attach to a sequence of {} positions", s.length);
  const auto total = static_cast<int64_t>(contents.size());
  PUNA_CHECK(at_most >= 0 && at_most <= total, "at most {} of {} positions", at_most, total);
  std::vector<PrefixHash> names(1);  // of the first i positions
  names.reserve(contents.size() + 1);
  for (const uint64_t content : contents) names.push_back(hasher_.next(names.back(), content));
  const auto name = [&](int64_t positions) { return names[static_cast<size_t>(positions)]; };

  while (s.global_stored + kBlockTokens <= total) {
    const auto block = global_.acquire(name(s.global_stored + kBlockTokens));
    if (!block) break;
    s.global.push_back(*block);
    s.global_stored += kBlockTokens;
  }
  s.length = std::min(s.global_stored, at_most);
  const int64_t chunk = shape_.chunk_tokens;
  if (chunk > 0) {
    s.chunk_begin = s.length / chunk * chunk;
    s.chunk_stored = s.chunk_begin;
    while (s.chunk_stored < s.chunk_begin + chunk) {
      const int64_t end = std::min((s.chunk_stored / kBlockTokens + 1) * kBlockTokens, s.chunk_begin + chunk);
      const auto block = end <= total ? chunk_.acquire(name(end)) : std::nullopt;
      if (!block) break;
      s.chunk.push_back(*block);
      s.chunk_stored = end;
    }
    s.length = std::min(s.length, s.chunk_stored);
  }
  s.named_ = s.length;
  s.name_ = name(s.length);
  return s.global_stored;
}

BlockManager::Need BlockManager::need(const BlockPool& pool, const std::vector<BlockId>& blocks, int64_t stored,
                                      int64_t end) const {
  const auto present = static_cast<int64_t>(blocks.size());
  const int64_t first_written = stored / kBlockTokens;
  const bool copy = stored < end && stored % kBlockTokens != 0 && first_written < present &&
                    pool.references(blocks[static_cast<size_t>(first_written)]) > 1;
  return {std::max<int64_t>(0, blocks_for(end) - present) + (copy ? 1 : 0), copy};
}

// The caller has seen that the pool has as many blocks.
void BlockManager::grow(BlockPool& pool, std::vector<BlockId>& blocks, int64_t stored, const Need& need, bool chunked,
                        std::vector<BlockCopy>& copies) {
  if (need.copy) {
    BlockId& shared = blocks[static_cast<size_t>(stored / kBlockTokens)];
    const BlockId own = pool.allocate().value();
    copies.push_back({chunked, shared, own});
    pool.release(shared);
    shared = own;
  }
  for (int64_t i = need.copy ? 1 : 0; i < need.blocks; ++i) blocks.push_back(pool.allocate().value());
}

bool BlockManager::extend(SequenceBlocks& s, int64_t end, std::vector<BlockCopy>& copies) {
  PUNA_CHECK(end > s.length && end <= chunk_end(s), "extend from {} to {}; the chunk ends at {}", s.length, end,
             chunk_end(s));
  leave_chunk(s);
  const Need global = need(global_, s.global, s.global_stored, end);
  const int64_t base = s.chunk_base();
  const Need chunk =
      shape_.chunk_tokens > 0 ? need(chunk_, s.chunk, s.chunk_stored - base, end - base) : Need{0, false};
  if (global.blocks > global_.available() || chunk.blocks > chunk_.available()) return false;
  grow(global_, s.global, s.global_stored, global, false, copies);
  grow(chunk_, s.chunk, s.chunk_stored - base, chunk, true, copies);
  return true;
}

int64_t BlockManager::chunk_end(const SequenceBlocks& s) const {
  const int64_t chunk = shape_.chunk_tokens;
  return chunk > 0 ? s.length / chunk * chunk + chunk : std::numeric_limits<int64_t>::max();
}

// At a chunk's end its blocks are of no use to what follows.
void BlockManager::leave_chunk(SequenceBlocks& s) {
  if (shape_.chunk_tokens == 0 || s.length < s.chunk_begin + shape_.chunk_tokens) return;
  release_all(chunk_, s.chunk);
  s.chunk_begin = s.chunk_stored = s.length;
}

void BlockManager::publish(BlockPool& pool, BlockId& block, const PrefixHash& name) {
  const BlockId known = pool.publish(block, name);
  if (known == block) return;
  pool.acquire(name);
  pool.release(block);
  block = known;
}

// Room that a step was given and did not use, as for rejected drafts; so that a fork shares what is stored alone.
void BlockManager::trim(BlockPool& pool, std::vector<BlockId>& blocks, int64_t stored) {
  while (static_cast<int64_t>(blocks.size()) > blocks_for(stored)) {
    pool.release(blocks.back());
    blocks.pop_back();
  }
}

void BlockManager::commit(SequenceBlocks& s, std::span<const uint64_t> contents, int64_t end, int64_t share_below) {
  PUNA_CHECK(end >= s.length && end <= static_cast<int64_t>(contents.size()) &&
                 end <= static_cast<int64_t>(s.global.size()) * kBlockTokens,
             "commit from {} to {}; {} contents, {} blocks", s.length, end, contents.size(), s.global.size());
  s.length = end;
  s.global_stored = std::max(s.global_stored, end);
  trim(global_, s.global, s.global_stored);
  if (shape_.chunk_tokens > 0) {
    s.chunk_stored = std::max(s.chunk_stored, end);
    trim(chunk_, s.chunk, s.chunk_stored - s.chunk_base());
  }
  while (s.named_ < std::min(end, share_below)) {
    s.name_ = hasher_.next(s.name_, contents[static_cast<size_t>(s.named_)]);
    ++s.named_;
    if (s.named_ % kBlockTokens == 0)
      publish(global_, s.global[static_cast<size_t>(s.named_ / kBlockTokens - 1)], s.name_);
    if (shape_.chunk_tokens == 0 || s.named_ <= s.chunk_begin) continue;
    if (s.named_ % kBlockTokens == 0 || s.named_ % shape_.chunk_tokens == 0)
      publish(chunk_, s.chunk[static_cast<size_t>((s.named_ - 1 - s.chunk_base()) / kBlockTokens)], s.name_);
  }
}

SequenceBlocks BlockManager::fork(const SequenceBlocks& s) {
  PUNA_CHECK(s.global_stored <= s.length && s.chunk_stored <= s.length, "fork at {} of {} shared positions", s.length,
             s.global_stored);
  for (const BlockId id : s.global) global_.retain(id);
  for (const BlockId id : s.chunk) chunk_.retain(id);
  return s;
}

// The block of this name, or a new one, which is left without it until all are there.
bool BlockManager::take(BlockPool& pool, const PrefixHash& name, std::vector<BlockId>& blocks,
                        std::vector<std::pair<int64_t, PrefixHash>>& fresh) {
  auto block = pool.acquire(name);
  if (!block) {
    block = pool.allocate();
    if (!block) return false;
    fresh.emplace_back(std::ssize(blocks), name);
  }
  blocks.push_back(*block);
  return true;
}

std::optional<std::vector<BlockFill>> BlockManager::restore(SequenceBlocks& s, std::span<const uint64_t> contents) {
  const auto total = static_cast<int64_t>(contents.size());
  PUNA_CHECK(s.global.empty() && s.chunk.empty() && total % kBlockTokens == 0, "restore {} positions", total);
  const int64_t chunk = shape_.chunk_tokens;
  if (chunk > 0) s.chunk_begin = total / chunk * chunk;
  std::vector<std::pair<int64_t, PrefixHash>> global, chunked;
  bool room = true;
  for (const uint64_t content : contents) {
    s.name_ = hasher_.next(s.name_, content);
    ++s.named_;
    if (s.named_ % kBlockTokens != 0 || !room) continue;
    room = take(global_, s.name_, s.global, global);
    if (room && chunk > 0 && s.named_ > s.chunk_begin) room = take(chunk_, s.name_, s.chunk, chunked);
  }
  if (!room) {
    release(s);
    return std::nullopt;
  }
  s.length = s.global_stored = total;
  if (chunk > 0) s.chunk_stored = total;
  std::vector<BlockFill> fills;
  for (const auto& [index, name] : global)
    fills.push_back({false, index, global_.publish(s.global[static_cast<size_t>(index)], name)});
  for (const auto& [index, name] : chunked)
    fills.push_back({true, index, chunk_.publish(s.chunk[static_cast<size_t>(index)], name)});
  return fills;
}

// The last blocks first, so that they are evicted before those that more prefixes begin with.
void BlockManager::release_all(BlockPool& pool, std::vector<BlockId>& blocks) {
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) pool.release(*block);
  blocks.clear();
}

void BlockManager::release(SequenceBlocks& s) {
  release_all(global_, s.global);
  release_all(chunk_, s.chunk);
  s = {};
}

}  // namespace puna::cache
