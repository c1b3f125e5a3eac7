// The manager against a plain model that remembers, for every position of every block, the whole past it was written
// with.
#include "cache/block_manager.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "base/error.h"

namespace puna::cache {
namespace {

using Contents = std::vector<uint64_t>;

/// Runs sequences as an engine does, with a memory in place of tensors.
class Machine {
 public:
  explicit Machine(const CacheShape& shape) : manager(shape), shape_(shape) {}

  /// Writes positions `sequence.length` to `end`; false when there is no room.
  bool run(SequenceBlocks& sequence, const Contents& contents, int64_t end, int64_t accepted = -1) {
    std::vector<BlockCopy> copies;
    if (!manager.extend(sequence, end, copies)) return false;
    for (const BlockCopy& copy : copies)
      for (int64_t i = 0; i < kBlockTokens; ++i) at(copy.chunked, copy.to, i) = at(copy.chunked, copy.from, i);
    for (int64_t p = sequence.length; p < end; ++p) {
      Contents past(contents.begin(), contents.begin() + std::min<int64_t>(p + 1, std::ssize(contents)));
      past.resize(static_cast<size_t>(p + 1), 1000);  // rejected drafts
      if (p >= sequence.global_stored) at(false, sequence.global[p / kBlockTokens], p % kBlockTokens) = past;
      const int64_t q = p - sequence.chunk_base();
      if (shape_.chunk_tokens > 0 && p >= sequence.chunk_stored)
        at(true, sequence.chunk[q / kBlockTokens], q % kBlockTokens) = past;
    }
    const int64_t committed = accepted < 0 ? end : accepted;
    manager.commit(sequence, contents, committed, committed);
    return true;
  }

  /// All that the next step of the sequence reads is what its own past wrote.
  testing::AssertionResult reads_right(const SequenceBlocks& sequence, const Contents& contents) {
    for (int64_t p = 0; p < sequence.length; ++p) {
      const Contents past(contents.begin(), contents.begin() + p + 1);
      if (at(false, sequence.global.at(p / kBlockTokens), p % kBlockTokens) != past)
        return testing::AssertionFailure() << "global position " << p;
      const int64_t q = p - sequence.chunk_base();
      if (shape_.chunk_tokens > 0 && p >= sequence.chunk_begin &&
          at(true, sequence.chunk.at(q / kBlockTokens), q % kBlockTokens) != past)
        return testing::AssertionFailure() << "chunk position " << p << " of chunk " << sequence.chunk_begin;
    }
    return testing::AssertionSuccess();
  }

  BlockManager manager;

 private:
  Contents& at(bool chunked, BlockId block, int64_t offset) { return memory_[{chunked, block, offset}]; }

  CacheShape shape_;
  std::map<std::tuple<bool, BlockId, int64_t>, Contents> memory_;
};

Contents counting(int64_t count, uint64_t first = 0) {
  Contents contents;
  for (int64_t i = 0; i < count; ++i) contents.push_back(first + static_cast<uint64_t>(i));
  return contents;
}

void run_all(Machine& machine, SequenceBlocks& sequence, const Contents& contents) {
  while (sequence.length < std::ssize(contents)) {
    const int64_t end = std::min<int64_t>(std::ssize(contents), machine.manager.chunk_end(sequence));
    ASSERT_TRUE(machine.run(sequence, contents, end));
  }
}

TEST(BlockManager, ReuseAtAChunkEdgeRunsNothingAgain) {
  Machine machine({100, 100, 64});
  const Contents contents = counting(64 + 40);
  SequenceBlocks first;
  run_all(machine, first, contents);
  machine.manager.release(first);
  // Another continuation from the chunk's edge on, while none of the old chunk's blocks is needed.
  Contents other = contents;
  other.resize(64);
  for (int i = 0; i < 30; ++i) other.push_back(7000 + i);
  SequenceBlocks second;
  EXPECT_EQ(machine.manager.attach(second, other, std::ssize(other) - 1), 64);
  EXPECT_EQ(second.length, 64);
  EXPECT_TRUE(second.chunk.empty());
}

TEST(BlockManager, ReuseWithinAChunkNeedsItsBlocksOrStartsAtItsEdge) {
  const CacheShape shape{100, 8, 64};
  Machine machine(shape);
  const Contents contents = counting(64 + 48);
  SequenceBlocks first;
  run_all(machine, first, contents);
  machine.manager.release(first);
  SequenceBlocks second;
  machine.manager.attach(second, contents, 64 + 40);
  EXPECT_EQ(second.length, 64 + 40);
  EXPECT_EQ(std::ssize(second.chunk), 3);
  machine.manager.release(second);

  SequenceBlocks filler;  // takes all chunked blocks, and by that the chunk's
  run_all(machine, filler, counting(64, 5000));
  SequenceBlocks more;
  run_all(machine, more, counting(64, 9000));
  machine.manager.release(filler);
  SequenceBlocks third;
  EXPECT_EQ(machine.manager.attach(third, contents, 64 + 40), 64 + 48);
  EXPECT_EQ(third.length, 64) << "the chunk is run again, from its start and not from 0";
  EXPECT_EQ(third.global_stored, 64 + 48) << "and the global blocks are shared all the same";
  const int64_t used = machine.manager.global().num_used();
  ASSERT_TRUE(machine.run(third, contents, 64 + 48));
  EXPECT_EQ(machine.manager.global().num_used(), used);
  EXPECT_TRUE(machine.reads_right(third, contents));
}

TEST(BlockManager, AForkCopiesTheBlockThatItWritesAlone) {
  Machine machine({10, 10, 64});
  Contents left = counting(20), right = left;
  SequenceBlocks one;
  run_all(machine, one, left);
  SequenceBlocks two = machine.manager.fork(one);
  EXPECT_EQ(machine.manager.global().num_used(), 2);
  left.push_back(500), right.push_back(600);
  run_all(machine, one, left);
  run_all(machine, two, right);
  EXPECT_EQ(machine.manager.global().num_used(), 3);
  EXPECT_EQ(one.global[0], two.global[0]);
  EXPECT_NE(one.global[1], two.global[1]);
  EXPECT_TRUE(machine.reads_right(one, left));
  EXPECT_TRUE(machine.reads_right(two, right));
}

TEST(BlockManager, EqualWorkDoneAtTheSameTimeIsKeptOnce) {
  Machine machine({10, 10, 64});
  const Contents contents = counting(40);
  SequenceBlocks one, two;
  run_all(machine, one, contents);
  run_all(machine, two, contents);
  EXPECT_EQ(machine.manager.global().num_used(), 4) << "two shared, and the unfinished block of each";
  EXPECT_TRUE(machine.reads_right(two, contents));
}

TEST(BlockManager, LongestSequenceIsWhatThePoolsHold) {
  EXPECT_EQ((CacheShape{10, 4, 64}.longest()), 160);
  EXPECT_EQ((CacheShape{10, 3, 64}.longest()), 48);
  EXPECT_EQ((CacheShape{10, 2, 5}.longest()), 160);
  EXPECT_EQ((CacheShape{10, 1, 5}.longest()), 5) << "a chunk may lie across two blocks";
  EXPECT_EQ((CacheShape{10, 0, 0}.longest()), 160);
}

struct Live {
  SequenceBlocks blocks;
  Contents contents;
};

void expect_exact_accounts(const BlockPool& pool, const std::map<BlockId, int32_t>& references) {
  EXPECT_EQ(pool.num_used(), std::ssize(references));
  EXPECT_EQ(pool.num_used() + pool.num_cached() + pool.num_free(), pool.capacity());
  for (const auto& [id, count] : references) EXPECT_EQ(pool.references(id), count) << id;
}

void random_operations(const CacheShape& shape, uint64_t seed, int operations) {
  std::mt19937_64 random(seed);
  const auto below = [&](uint64_t limit) { return static_cast<int64_t>(random() % limit); };
  Machine machine(shape);
  BlockManager& manager = machine.manager;
  std::vector<Live> live;
  int64_t shared = 0, refused = 0;
  for (int i = 0; i < operations; ++i) {
    const int64_t what = below(10);
    if (live.empty() || (what == 0 && live.size() < 12)) {  // few different prompts, so that they share
      Live fresh;
      fresh.contents = counting(1 + below(90));
      if (below(2) == 0) fresh.contents[static_cast<size_t>(below(fresh.contents.size()))] = 777;
      shared += manager.attach(fresh.blocks, fresh.contents, below(fresh.contents.size() + 1));
      live.push_back(std::move(fresh));
    } else if (what == 1 && live.size() < 12) {
      const Live& parent = live[static_cast<size_t>(below(live.size()))];
      if (parent.blocks.global_stored > parent.blocks.length || parent.blocks.chunk_stored > parent.blocks.length)
        continue;
      Live child{manager.fork(parent.blocks), parent.contents};
      child.contents.resize(static_cast<size_t>(child.blocks.length));
      live.push_back(std::move(child));
    } else if (what == 2) {
      const auto gone = live.begin() + below(live.size());
      manager.release(gone->blocks);
      live.erase(gone);
    } else {
      Live& one = live[static_cast<size_t>(below(live.size()))];
      const int64_t length = one.blocks.length;
      const int64_t end = std::min(length + 1 + below(20), manager.chunk_end(one.blocks));
      const int64_t accepted = below(4) == 0 ? length + 1 + below(static_cast<uint64_t>(end - length)) : end;
      while (std::ssize(one.contents) < accepted) one.contents.push_back(static_cast<uint64_t>(below(3)));
      refused += machine.run(one.blocks, one.contents, end, accepted) ? 0 : 1;
    }
    std::map<BlockId, int32_t> global, chunk;
    for (const Live& one : live) {
      ASSERT_TRUE(machine.reads_right(one.blocks, one.contents)) << "seed " << seed << " operation " << i;
      for (const BlockId id : one.blocks.global) ++global[id];
      for (const BlockId id : one.blocks.chunk) ++chunk[id];
    }
    expect_exact_accounts(manager.global(), global);
    expect_exact_accounts(manager.chunk(), chunk);
    ASSERT_FALSE(testing::Test::HasFailure()) << "seed " << seed << " operation " << i;
  }
  EXPECT_GT(shared, 100);
  EXPECT_GT(refused, 0);
  EXPECT_GT(manager.global().evictions(), 10);
  for (Live& one : live) manager.release(one.blocks);
  EXPECT_EQ(manager.global().num_used() + manager.chunk().num_used(), 0);
}

TEST(BlockManager, RandomOperationsAgreeWithAPlainModel) {
  const CacheShape shapes[] = {{30, 20, 32}, {30, 20, 5}, {30, 16, 40}, {25, 0, 0}, {40, 30, 1 << 20}};
  uint64_t seed = 1;
  for (const CacheShape& shape : shapes)
    for (int round = 0; round < 4; ++round) random_operations(shape, seed++, 1000);
}

}  // namespace
}  // namespace puna::cache
