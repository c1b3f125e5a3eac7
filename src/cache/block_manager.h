// The blocks of many sequences in two pools: of global layers, which grow with a sequence, and of chunked layers, which
// need the current attention chunk alone.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "cache/block_pool.h"

namespace puna::cache {

/// Sizes of the two pools. A model without layers of a kind has no blocks of it.
struct CacheShape {
  int64_t global_blocks = 0;
  int64_t chunk_blocks = 0;
  int64_t chunk_tokens = 0;  // attention chunk; 0: no layer is chunked

  /// Blocks that a sequence of so many positions takes, all of it in one chunk at worst.
  int64_t global_blocks_of(int64_t tokens) const;
  int64_t chunk_blocks_of(int64_t tokens) const;
  /// The longest sequence that fits when nothing else is there.
  int64_t longest() const;
};

/// The blocks of one sequence; changed by a BlockManager alone, and given back with release().
struct SequenceBlocks {
  std::vector<BlockId> global;  // block i holds positions 16 i to 16 i + 15
  std::vector<BlockId> chunk;   // block i holds positions chunk_base() + 16 i to chunk_base() + 16 i + 15
  int64_t chunk_begin = 0;      // where the current chunk starts; blocks hold nothing of what is before
  int64_t length = 0;           // positions that have been run
  // Positions below these are stored already, also beyond `length` when shared blocks hold them: a step that runs
  // them again must not write.
  int64_t global_stored = 0, chunk_stored = 0;

  int64_t chunk_base() const { return chunk_begin / kBlockTokens * kBlockTokens; }

 private:
  friend class BlockManager;
  PrefixHash name_;  // of the first `named_` positions
  int64_t named_ = 0;
};

/// A block whose contents must be copied before the step writes.
struct BlockCopy {
  bool chunked;
  BlockId from, to;
};

/// A block that restore() took and whose contents must be written before anything runs.
struct BlockFill {
  bool chunked;
  int64_t index;  // in SequenceBlocks::global or chunk
  BlockId block;
};

class BlockManager {
 public:
  explicit BlockManager(const CacheShape& shape);

  /// Makes an empty sequence share the longest known prefix of `contents` (one number per position: equal numbers mean
  /// equal inputs). Its length, at most `at_most`, is where it has to go on: where the global blocks end, or, when the
  /// chunked blocks of that chunk are not all there, where those end, at worst the chunk's start. Returns the positions
  /// whose global blocks are shared.
  int64_t attach(SequenceBlocks& sequence, std::span<const uint64_t> contents, int64_t at_most);

  /// Makes room for positions up to `end`, which must lie in the chunk of position `length`; blocks that others use too
  /// and that will be written are replaced, with what to copy appended to `copies`. false, and no room, when blocks are
  /// lacking.
  [[nodiscard]] bool extend(SequenceBlocks& sequence, int64_t end, std::vector<BlockCopy>& copies);
  /// Where the chunk of position `length` ends; the largest integer without chunks.
  int64_t chunk_end(const SequenceBlocks& sequence) const;

  /// Positions up to `end` have been run; room beyond is given back. Full blocks below `share_below` become known under
  /// their prefix; one that is known already is given back for the known one.
  void commit(SequenceBlocks& sequence, std::span<const uint64_t> contents, int64_t end, int64_t share_below);

  /// A sequence with the same past, which shares all blocks. All that was attached must have been run.
  SequenceBlocks fork(const SequenceBlocks& sequence);
  /// Makes an empty sequence hold `contents`, whole blocks of them: those that are known, and new ones, known from now
  /// on, which the caller must fill. nullopt, and no change, when blocks are lacking.
  std::optional<std::vector<BlockFill>> restore(SequenceBlocks& sequence, std::span<const uint64_t> contents);
  /// Gives all blocks back and makes the sequence empty.
  void release(SequenceBlocks& sequence);

  const CacheShape& shape() const { return shape_; }
  const BlockPool& global() const { return global_; }
  const BlockPool& chunk() const { return chunk_; }

 private:
  struct Need {
    int64_t blocks;  // to allocate, that of `copy` among them
    bool copy;       // the block in which the next position to be written lies is shared
  };
  Need need(const BlockPool& pool, const std::vector<BlockId>& blocks, int64_t stored, int64_t end) const;
  void grow(BlockPool& pool, std::vector<BlockId>& blocks, int64_t stored, const Need& need, bool chunked,
            std::vector<BlockCopy>& copies);
  void leave_chunk(SequenceBlocks& sequence);
  static bool take(BlockPool& pool, const PrefixHash& name, std::vector<BlockId>& blocks,
                   std::vector<std::pair<int64_t, PrefixHash>>& fresh);
  static void trim(BlockPool& pool, std::vector<BlockId>& blocks, int64_t stored);
  static void release_all(BlockPool& pool, std::vector<BlockId>& blocks);
  static void publish(BlockPool& pool, BlockId& block, const PrefixHash& name);

  const CacheShape shape_;
  BlockPool global_, chunk_;
  const PrefixHasher hasher_;
};

}  // namespace puna::cache
