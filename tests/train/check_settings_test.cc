// Settings without an effect are told, one line each; a stage in which nothing learns is an error.
#include "train/check_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/train/support.h"

namespace puna::train {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kRecipe = R"(
[model]
from = "somewhere"
[[source]]
name = "sums"
generate = "arithmetic"
documents = 5
[[stage]]
name = "first"
steps = 9
[[stage]]
name = "last"
steps = 9
)";

std::vector<std::string> warnings(const std::vector<std::string>& overrides, bool vision = false,
                                  const std::string& more = "") {
  return check_settings(parse_recipe(kRecipe + more, "recipe", "/", overrides), test::train_config(vision));
}

const std::string kHeldOut = "[[source]]\nname = 'held'\ngenerate = 'arithmetic'\ndocuments = 5\nvalidation = true\n";

TEST(CheckSettings, SourcesThatAreNotUsed) {
  EXPECT_THAT(warnings({}), IsEmpty());
  EXPECT_THAT(warnings({"validation.every=2"}, false, kHeldOut), IsEmpty());
  EXPECT_THAT(warnings({"validation.every=2"}), ElementsAre(HasSubstr("no source says validation = true")));
  EXPECT_THAT(warnings({}, false, kHeldOut), ElementsAre(HasSubstr("source 'held' is never measured")));
  EXPECT_THAT(warnings({"validation.every=2", "stage.last.weights={sums=1, held=1}"}, false, kHeldOut),
              ElementsAre(HasSubstr("stage.last.weights.held has no effect")));
  const std::string other = "[[source]]\nname = 'other'\nfiles = ['x']\n";
  EXPECT_THAT(warnings({"stage.first.weights={sums=1}"}, false, other), IsEmpty());
  EXPECT_THAT(warnings({"stage.first.weights={sums=1}", "stage.last.weights={sums=1, other=0}"}, false, other),
              ElementsAre(HasSubstr("source 'other' is trained on in no stage")));
}

TEST(CheckSettings, WhatTheScheduleOrTheModelDoesNotHave) {
  EXPECT_THAT(warnings({"optimizer.vision_rate=0.5"}), ElementsAre(HasSubstr("the model has no vision")));
  EXPECT_THAT(warnings({"optimizer.vision_rate=0.5"}, true), IsEmpty());
  EXPECT_THAT(warnings({"stage.last.freeze=['vision']"}), ElementsAre(HasSubstr("has no 'vision' to freeze")));
  EXPECT_THAT(warnings({"balance.bias_rate=0.1"}), IsEmpty());
  arch::Llama4Config dense = test::train_config();
  dense.text.moe_layers.clear();
  for (const char* setting : {"bias_rate=0.1", "load_balance_weight=1", "router_z_weight=1", "dead_steps=7"})
    EXPECT_THAT(check_settings(parse_recipe(kRecipe, "recipe", "/", {std::string("balance.") + setting}), dense),
                ElementsAre(HasSubstr("the model has no experts")))
        << setting;
}

TEST(CheckSettings, AStageThatLearnsNothingIsRefused) {
  EXPECT_THAT(warnings({"stage.last.freeze=['text']"}, true), IsEmpty());
  for (const bool vision : {false, true}) {
    const std::string parts = vision ? "['text', 'vision']" : "['text']";
    try {
      warnings({"stage.last.freeze=" + parts}, vision);
      FAIL() << parts;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("'stage.last.freeze' leaves nothing")) << parts;
    }
  }
}

}  // namespace
}  // namespace puna::train
