// Blocks of one pool: counting, names, and which cached block goes first.
#include "cache/block_pool.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace puna::cache {
namespace {

PrefixHash name(uint64_t n) { return {n, ~n}; }

TEST(BlockPool, GivesEveryBlockOnceAndThenNone) {
  BlockPool pool(3);
  EXPECT_EQ(pool.allocate(), 0);
  EXPECT_EQ(pool.allocate(), 1);
  EXPECT_EQ(pool.allocate(), 2);
  EXPECT_EQ(pool.allocate(), std::nullopt);
  pool.release(1);
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_EQ(pool.allocate(), 1);
}

TEST(BlockPool, ANamedBlockIsCachedAndComesBackByItsName) {
  BlockPool pool(2);
  const BlockId id = pool.allocate().value();
  EXPECT_EQ(pool.publish(id, name(7)), id);
  pool.release(id);
  EXPECT_EQ(pool.num_cached(), 1);
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_EQ(pool.acquire(name(7)), id);
  EXPECT_EQ(pool.acquire(name(7)), id);
  EXPECT_EQ(pool.references(id), 2);
  EXPECT_EQ(pool.acquire(name(8)), std::nullopt);
}

TEST(BlockPool, EvictsTheLeastRecentlyReleasedAndForgetsItsName) {
  BlockPool pool(2);
  for (const uint64_t n : {1, 2}) pool.publish(pool.allocate().value(), name(n));
  pool.release(0);
  pool.release(1);
  pool.release(pool.acquire(name(1)).value());  // now 1 is the more recent
  const BlockId reused = pool.allocate().value();
  EXPECT_FALSE(pool.holds(name(2)));
  EXPECT_TRUE(pool.holds(name(1)));
  EXPECT_EQ(pool.evictions(), 1);
  EXPECT_EQ(pool.publish(reused, name(3)), reused) << "an evicted block has no name any more";
}

TEST(BlockPool, TheFirstOfTwoBlocksOfOneNameStays) {
  BlockPool pool(2);
  const BlockId first = pool.allocate().value(), second = pool.allocate().value();
  pool.publish(first, name(1));
  EXPECT_EQ(pool.publish(second, name(1)), first);
  pool.release(second);
  EXPECT_EQ(pool.num_free(), 1);
}

TEST(BlockPool, MisuseIsFound) {
  BlockPool pool(2);
  EXPECT_THROW(pool.release(0), InternalError);
  const BlockId id = pool.allocate().value();
  pool.release(id);
  EXPECT_THROW(pool.release(id), InternalError);
  EXPECT_THROW(pool.retain(id), InternalError);
}

}  // namespace
}  // namespace puna::cache
