// A cache of experts in front of a file: right bytes under any order of visits and guesses, what stays, what is
// counted.
#include "experts/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <list>
#include <map>
#include <random>
#include <set>

#include "base/error.h"
#include "tests/support/golden.h"

namespace puna::experts {
namespace {

using testing::HasSubstr;

constexpr int64_t kPage = io::kDirectAlignment;

/// A file of `layers` x `experts` blocks of one to three pages, each filled with its own number.
class Store : public testing::Test {
 protected:
  StoreLayout make(int layers, int experts, int64_t pages = 0) {
    StoreLayout layout{path(), {}};
    std::ofstream file(path(), std::ios::binary);
    file.write(std::string(kPage, 'h').data(), kPage);  // a header
    int64_t offset = kPage;
    for (int l = 0; l < layers; ++l) {
      layout.blocks.emplace_back();
      for (int e = 0; e < experts; ++e) {
        const int64_t bytes = kPage * (pages > 0 ? pages : 1 + (l + e) % 3);
        std::vector<int32_t> values(static_cast<size_t>(bytes / 4), number(l, e));
        file.write(reinterpret_cast<const char*>(values.data()), bytes);
        layout.blocks.back().push_back({offset, bytes});
        offset += bytes;
      }
    }
    return layout;
  }
  std::filesystem::path path() const { return dir_.path() / "experts"; }
  static int32_t number(int layer, int expert) { return 1000 * layer + expert + 1; }

  /// Visits, checking that each expert comes once with its own bytes. Returns how many calls it took.
  static int visit(ExpertStore& store, const StoreLayout& layout, int layer, const std::vector<int>& experts) {
    std::multiset<int> seen;
    int calls = 0;
    store.visit(layer, experts, [&](std::span<const ExpertStore::Present> present) {
      ++calls;
      EXPECT_TRUE(calls == 1 || !present.empty());
      for (const auto& one : present) {
        seen.insert(one.expert);
        const auto* values = reinterpret_cast<const int32_t*>(one.bytes);
        const int64_t count = layout.blocks[static_cast<size_t>(layer)][static_cast<size_t>(one.expert)].bytes / 4;
        EXPECT_TRUE(std::all_of(values, values + count, [&](int32_t v) { return v == number(layer, one.expert); }));
      }
    });
    EXPECT_EQ(seen, std::multiset<int>(experts.begin(), experts.end()));
    return calls;
  }

 private:
  test::TemporaryDirectory dir_;
};

std::vector<int> some(std::mt19937& random, int experts, int most) {
  std::vector<int> all(static_cast<size_t>(experts));
  for (int i = 0; i < experts; ++i) all[static_cast<size_t>(i)] = i;
  std::shuffle(all.begin(), all.end(), random);
  all.resize(1 + random() % static_cast<unsigned>(most));
  return all;
}

TEST_F(Store, GivesEachExpertOnceWithItsBytesWhateverTheBudgetAndTheGuesses) {
  const StoreLayout layout = make(5, 12);
  for (const int64_t slots : {2, 3, 7, 20, 60, 100}) {
    ExpertStore store(layout, slots * layout.largest_block());
    EXPECT_EQ(store.num_slots(), std::min<int64_t>(slots, 60));
    std::mt19937 random(static_cast<unsigned>(slots));
    int64_t uses = 0;
    for (int i = 0; i < 300; ++i) {
      const int layer = static_cast<int>(random() % 5);
      if (random() % 2 == 0) store.prefetch(static_cast<int>(random() % 5), some(random, 12, 6));
      const std::vector<int> experts = some(random, 12, 12);
      uses += std::ssize(experts);
      visit(store, layout, layer, experts);
    }
    const StoreStatistics statistics = store.statistics();
    EXPECT_EQ(statistics.uses, uses);
    EXPECT_LE(statistics.useful_prefetches, statistics.prefetches);
    EXPECT_LE(statistics.predicted_right, statistics.predicted);
    if (slots >= 60) {
      EXPECT_LE(statistics.uses - statistics.hits, 60) << "everything fits: each is read once";
    } else {
      EXPECT_GT(statistics.uses - statistics.hits, 60);
    }
  }
}

TEST_F(Store, UsesWhatIsThereBeforeItWaits) {
  const StoreLayout layout = make(1, 8);
  ExpertStore store(layout, 8 * layout.largest_block());
  visit(store, layout, 0, {1, 2, 3});
  std::vector<int> first;
  store.visit(0, std::vector<int>{5, 2, 6, 1}, [&](std::span<const ExpertStore::Present> present) {
    if (first.empty())
      for (const auto& one : present) first.push_back(one.expert);
  });
  EXPECT_THAT(first, testing::IsSupersetOf({1, 2}));
  EXPECT_EQ(store.statistics().hits, 2);
}

/// The hit rate of least-recent use on the same visits, for comparison.
double hit_rate_of_lru(const std::vector<std::pair<int, std::vector<int>>>& visits, size_t slots) {
  std::list<std::pair<int, int>> order;
  int64_t uses = 0, hits = 0;
  for (const auto& [layer, experts] : visits)
    for (const int e : experts) {
      const std::pair key(layer, e);
      const auto found = std::find(order.begin(), order.end(), key);
      ++uses;
      if (found != order.end()) {
        ++hits;
        order.erase(found);
      } else if (order.size() == slots) {
        order.pop_back();
      }
      order.push_front(key);
    }
  return static_cast<double>(hits) / static_cast<double>(uses);
}

TEST_F(Store, KeepsWhatIsUsedOften) {
  const int layers = 6, experts = 16;
  const StoreLayout layout = make(layers, experts, 1);
  std::vector<double> zipf;
  for (int e = 0; e < experts; ++e) zipf.push_back(1.0 / (e + 1));
  std::mt19937 random(3);
  std::discrete_distribution<int> pick(zipf.begin(), zipf.end());
  std::vector<std::pair<int, std::vector<int>>> visits;
  for (int step = 0; step < 600; ++step)
    for (int l = 0; l < layers; ++l) visits.push_back({l, {(pick(random) + 5 * l) % experts}});
  const size_t slots = 24;  // a quarter
  ExpertStore store(layout, static_cast<int64_t>(slots) * kPage);
  for (const auto& [layer, chosen] : visits) visit(store, layout, layer, chosen);
  // The best four of each layer have 0.62 of all uses.
  EXPECT_GT(store.statistics().hit_rate(), 0.52);
  EXPECT_GT(store.statistics().hit_rate(), 1.15 * hit_rate_of_lru(visits, slots));

  ExpertStore warmed(layout, static_cast<int64_t>(slots) * kPage);
  std::vector<std::vector<int>> rows(layers, std::vector<int>(experts));
  for (const auto& [layer, chosen] : visits) ++rows[static_cast<size_t>(layer)][static_cast<size_t>(chosen[0])];
  warmed.warm({{"rows", rows}}, "profile");
  for (size_t i = 0; i < 60; ++i) visit(warmed, layout, visits[i].first, visits[i].second);
  ExpertStore cold(layout, static_cast<int64_t>(slots) * kPage);
  for (size_t i = 0; i < 60; ++i) visit(cold, layout, visits[i].first, visits[i].second);
  EXPECT_GT(warmed.statistics().hits, cold.statistics().hits + 5);
}

TEST_F(Store, CountsWhatGuessesWereWorth) {
  const StoreLayout layout = make(2, 8);
  ExpertStore store(layout, 8 * layout.largest_block());
  store.prefetch(0, std::vector<int>{0, 1, 2});
  store.prefetch(0, std::vector<int>{2});  // said again
  visit(store, layout, 0, {1, 2, 5});
  StoreStatistics statistics = store.statistics();
  EXPECT_EQ(statistics.prefetches, 3);
  EXPECT_EQ(statistics.useful_prefetches, 2);
  EXPECT_EQ(statistics.predicted, 3);
  EXPECT_EQ(statistics.predicted_right, 2);
  EXPECT_EQ(statistics.hits, 2);
  visit(store, layout, 0, {0});  // read ahead, used later: useful, but not predicted for this visit
  statistics = store.statistics();
  EXPECT_EQ(statistics.useful_prefetches, 3);
  EXPECT_EQ(statistics.predicted_right, 2);
}

TEST_F(Store, RefusesABudgetForLessThanTwoExpertsAndSaysWhatWorks) {
  const StoreLayout layout = make(2, 4, 256);
  try {
    ExpertStore(layout, 2 * layout.largest_block() - 1);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("give 2.00 MiB at least"));
  }
  ExpertStore store(layout, 2 * layout.largest_block());
  visit(store, layout, 1, {3, 0, 1, 2});
}

TEST_F(Store, SaysWhenTheFileIsCutOrChanges) {
  const StoreLayout layout = make(1, 8);
  std::filesystem::resize_file(path(), std::filesystem::file_size(path()) - 1);
  EXPECT_THROW(ExpertStore(layout, 8 * layout.largest_block()), Error);
  make(1, 8);
  ExpertStore store(layout, 4 * layout.largest_block());
  visit(store, layout, 0, {0, 1});
  std::filesystem::resize_file(path(), 2 * kPage);
  int uses = 0;
  const auto use = [&](std::span<const ExpertStore::Present> present) { uses += static_cast<int>(present.size()); };
  EXPECT_THROW(store.visit(0, std::vector<int>{0, 7}, use), Error);
  EXPECT_LE(uses, 1);
  visit(store, layout, 0, {0, 1});  // what is in memory is still right
}

TEST_F(Store, RefusesProfilesOfOtherModels) {
  const StoreLayout layout = make(2, 3);
  ExpertStore store(layout, 8 * layout.largest_block());
  const auto said = [&](const char* text) {
    try {
      store.warm(parse_json(text, "p"), "p.json");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(said("{}"), HasSubstr("no profile"));
  EXPECT_THAT(said("{\"rows\": [[1, 2, 3]]}"), HasSubstr("no list of 2"));
  EXPECT_THAT(said("{\"rows\": [[1, 2, 3], [1, 2]]}"), HasSubstr("no list of 3"));
  EXPECT_THAT(said("{\"rows\": [[1, 2, 3], [1, 2, -3]]}"), HasSubstr("-3 where a count"));
  EXPECT_THAT(said("{\"rows\": [[1, 2, 3], [1, 2, 1e300]]}"), HasSubstr("where a count"));
  EXPECT_EQ(said("{\"rows\": [[1, 2, 3], [1, 2, 3]]}"), "");
  visit(store, layout, 0, {0, 1, 2});
  EXPECT_EQ(store.statistics().hits, 3);
}

}  // namespace
}  // namespace puna::experts
