// The memory that a run is refused for.
#include "train/memory_need.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "arch/counts.h"
#include "base/error.h"
#include "tests/train/support.h"

namespace puna::train {
namespace {

using testing::AllOf;
using testing::HasSubstr;

Recipe recipe_of(const StageConfig& stage) {
  Recipe recipe;
  recipe.stages = {stage};
  return recipe;
}

TEST(MemoryNeed, CountsWhatIsAllocated) {
  const arch::Llama4Config config = test::train_config(true);
  const int64_t count = arch::count_parameters(config).total;
  Recipe recipe = recipe_of(test::plain_stage());
  const MemoryNeed need = memory_need(recipe, config);
  EXPECT_EQ(need.weights, 4 * count);
  EXPECT_EQ(need.gradients, 4 * count);
  EXPECT_EQ(need.moments, 8 * count);
  EXPECT_EQ(need.snapshot, 12 * count);
  recipe.precision = "bfloat16";
  EXPECT_EQ(memory_need(recipe, config).weights, 6 * count);
  recipe.recompute = true;
  EXPECT_LT(memory_need(recipe, config).activations, need.activations / 2);
}

TEST(MemoryNeed, FrozenPartsHaveNoMoments) {
  const arch::Llama4Config config = test::train_config(true);
  StageConfig frozen = test::plain_stage();
  frozen.freeze = {"text"};
  const int64_t vision = arch::count_parameters(config).vision;
  const MemoryNeed need = memory_need(recipe_of(frozen), config);
  EXPECT_EQ(need.gradients, 4 * vision);
  EXPECT_EQ(need.moments, 8 * vision);
}

TEST(MemoryNeed, WhatDoesNotFitIsRefusedWithWhatHelps) {
  const MemoryNeed need = {.weights = 4 << 20, .gradients = 4 << 20, .moments = 8 << 20, .activations = 64 << 20};
  EXPECT_NO_THROW(check_memory(need, need.total(), "r.toml"));
  const auto error_of = [&](int64_t available) -> std::string {
    try {
      check_memory(need, available, "r.toml");
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_THAT(error_of(need.total() - 1),
              AllOf(HasSubstr("[r.toml] training needs 80.00 MiB"), HasSubstr("recompute")));
  EXPECT_THAT(error_of(1 << 20), AllOf(HasSubstr("1.00 MiB are free; use a smaller model"), HasSubstr("--no-memory")));
}

}  // namespace
}  // namespace puna::train
