// Learning rates worked out by hand.
#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace puna::train {
namespace {

ScheduleConfig schedule(const char* kind, int64_t warmup, int64_t decay = 0, double low = 0.1) {
  ScheduleConfig config;
  config.kind = kind;
  config.warmup_steps = warmup;
  config.decay_steps = decay;
  config.final_fraction = low;
  return config;
}

TEST(Schedule, WarmsUpInAStraightLineFromTheFirstStep) {
  for (const char* kind : {"constant", "linear", "cosine", "wsd"}) {
    const ScheduleConfig config = schedule(kind, 4);
    EXPECT_DOUBLE_EQ(learning_rate(config, 8, 0, 20), 2) << kind;
    EXPECT_DOUBLE_EQ(learning_rate(config, 8, 1, 20), 4) << kind;
    EXPECT_DOUBLE_EQ(learning_rate(config, 8, 3, 20), 8) << kind;
    EXPECT_DOUBLE_EQ(learning_rate(config, 8, 4, 20), 8) << kind << ": the first step after it is at the peak";
  }
}

TEST(Schedule, ConstantStaysAtThePeak) { EXPECT_EQ(learning_rate(schedule("constant", 0), 3, 99, 100), 3); }

TEST(Schedule, LinearReachesTheFinalFractionAtTheLastStep) {
  const ScheduleConfig config = schedule("linear", 0, 0, 0.2);
  EXPECT_DOUBLE_EQ(learning_rate(config, 10, 0, 5), 10);
  EXPECT_DOUBLE_EQ(learning_rate(config, 10, 1, 5), 8);
  EXPECT_DOUBLE_EQ(learning_rate(config, 10, 2, 5), 6);
  EXPECT_DOUBLE_EQ(learning_rate(config, 10, 4, 5), 2);
}

TEST(Schedule, CosineIsHalfWayInTheMiddle) {
  const ScheduleConfig config = schedule("cosine", 2, 0, 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(config, 8, 2, 7), 8);
  EXPECT_NEAR(learning_rate(config, 8, 3, 7), 8 * (0.5 + 0.25 * (1 + std::sqrt(0.5))), 1e-12);
  EXPECT_NEAR(learning_rate(config, 8, 4, 7), 6, 1e-12);
  EXPECT_NEAR(learning_rate(config, 8, 6, 7), 4, 1e-12);
}

TEST(Schedule, WsdIsStableAndThenDecays) {
  const ScheduleConfig config = schedule("wsd", 2, 3, 0);
  EXPECT_DOUBLE_EQ(learning_rate(config, 6, 2, 10), 6);
  EXPECT_DOUBLE_EQ(learning_rate(config, 6, 6, 10), 6);
  EXPECT_DOUBLE_EQ(learning_rate(config, 6, 7, 10), 6) << "the first step of the decay";
  EXPECT_DOUBLE_EQ(learning_rate(config, 6, 8, 10), 3);
  EXPECT_DOUBLE_EQ(learning_rate(config, 6, 9, 10), 0);
  EXPECT_DOUBLE_EQ(learning_rate(schedule("wsd", 2, 0, 0), 6, 9, 10), 6) << "without a decay";
}

// Where the decay has a single step there is no line to walk down.
TEST(Schedule, SmallRunsHaveFiniteRates) {
  for (const char* kind : {"constant", "linear", "cosine", "wsd"})
    for (int64_t steps = 1; steps <= 4; ++steps)
      for (int64_t warmup = 0; warmup <= steps; ++warmup)
        for (int64_t step = 0; step < steps; ++step) {
          const double rate = learning_rate(schedule(kind, warmup, steps - warmup), 1, step, steps);
          EXPECT_GT(rate, 0) << kind << " " << step << " of " << steps;
          EXPECT_LE(rate, 1) << kind << " " << step << " of " << steps;
        }
}

}  // namespace
}  // namespace puna::train
