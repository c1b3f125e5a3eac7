#include "eval/stats.h"

#include <gtest/gtest.h>

#include <vector>

namespace puna::eval {
namespace {

// 8 of 10: p = 0.8, z^2 = 3.841459, centre = (0.8 + 0.192073) / 1.384146 = 0.716740,
// half = 1.959964 * sqrt(0.016 + 0.00960365) / 1.384146 = 0.226578.
TEST(Wilson, HandWorkedValues) {
  const Interval some = wilson(8, 10);
  EXPECT_NEAR(some.low, 0.490162, 2e-6);
  EXPECT_NEAR(some.high, 0.943318, 2e-6);
  // 0 of 10: high = z^2 / (n + z^2) = 3.841459 / 13.841459; 10 of 10 is its mirror.
  EXPECT_EQ(wilson(0, 10).low, 0);
  EXPECT_NEAR(wilson(0, 10).high, 0.277533, 1e-6);
  EXPECT_NEAR(wilson(10, 10).low, 0.722467, 1e-6);
  EXPECT_EQ(wilson(10, 10).high, 1);
  // 1 of 2: centre is 1/2, half = 1.959964 * sqrt(0.125 + 0.240091) / 2.920729.
  EXPECT_NEAR(wilson(1, 2).low, 0.094531, 2e-6);
  EXPECT_NEAR(wilson(1, 2).high, 0.905469, 2e-6);
}

TEST(Wilson, NothingMeasuredIsNothingKnown) {
  EXPECT_EQ(wilson(0, 0).low, 0);
  EXPECT_EQ(wilson(0, 0).high, 1);
}

TEST(Bootstrap, EqualItemsLeaveNoDoubt) {
  const std::vector<double> nll = {4, 2, 6}, tokens = {2, 1, 3};
  const Interval interval = bootstrap_ratio(nll, tokens);
  EXPECT_DOUBLE_EQ(interval.low, 2);
  EXPECT_DOUBLE_EQ(interval.high, 2);
}

// Of two items a quarter of the draws takes the first twice, a quarter the second twice: the ends are their ratios.
TEST(Bootstrap, TwoItemsGiveTheirOwnRatios) {
  const std::vector<double> nll = {1, 9}, tokens = {1, 3};
  const Interval interval = bootstrap_ratio(nll, tokens);
  EXPECT_DOUBLE_EQ(interval.low, 1);
  EXPECT_DOUBLE_EQ(interval.high, 3);
}

// A mean of 400 values that are 0 or 1 in equal parts: 0.5 +- 1.96 * 0.5 / 20 = [0.451, 0.549].
TEST(Bootstrap, ComesNearTheNormalInterval) {
  std::vector<double> values(400), ones(400, 1);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i % 2);
  const Interval interval = bootstrap_ratio(values, ones, 7);
  EXPECT_NEAR(interval.low, 0.451, 0.01);
  EXPECT_NEAR(interval.high, 0.549, 0.01);
}

TEST(Bootstrap, TheSeedDecides) {
  const std::vector<double> nll = {1, 2, 3, 4, 5, 6, 7.5}, tokens(7, 1);
  EXPECT_EQ(bootstrap_ratio(nll, tokens, 3).low, bootstrap_ratio(nll, tokens, 3).low);
  const Interval a = bootstrap_ratio(nll, tokens, 3), b = bootstrap_ratio(nll, tokens, 4);
  EXPECT_TRUE(a.low != b.low || a.high != b.high);
}

}  // namespace
}  // namespace puna::eval
