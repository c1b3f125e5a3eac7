#include "base/parallel_for.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

namespace puna {
namespace {

TEST(ParallelFor, EachPartRunsOnceWhateverTheThreads) {
  for (int64_t threads : {0, 1, 2, 7, 1000}) {
    std::vector<int> runs(100);
    parallel_for(100, threads, [&](int64_t i) { ++runs[static_cast<size_t>(i)]; });
    EXPECT_EQ(runs, std::vector<int>(100, 1)) << threads;
  }
  parallel_for(0, 4, [](int64_t) { FAIL(); });
}

TEST(ParallelFor, PartsRunAtTheSameTime) {
  // Each of the two waits for the other: one thread alone would never finish the first.
  std::atomic<int> begun = 0;
  parallel_for(2, 2, [&](int64_t) {
    ++begun;
    while (begun < 2) std::this_thread::yield();
  });
  EXPECT_EQ(begun, 2);
}

TEST(ParallelFor, OneThreadIsTheCallersInOrder) {
  std::vector<int64_t> order;
  std::set<std::thread::id> ids;
  parallel_for(5, 1, [&](int64_t i) {
    order.push_back(i);
    ids.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(order, (std::vector<int64_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(ids, std::set{std::this_thread::get_id()});
}

TEST(ParallelFor, AnExceptionStopsTheRestAndComesBack) {
  for (int64_t threads : {1, 4}) {
    std::atomic<int> runs = 0;
    const auto work = [&](int64_t) {
      ++runs;
      throw std::runtime_error("stop");
    };
    EXPECT_THROW(parallel_for(1000, threads, work), std::runtime_error);
    EXPECT_LE(runs, threads);
  }
}

}  // namespace
}  // namespace puna
