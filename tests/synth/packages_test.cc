// Package descriptions as documents.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "tests/synth/support.h"

namespace puna::synth {
namespace {

TEST(Packages, ADescriptionIsOneDocument) {
  std::set<std::string> texts;
  const auto train = records_of(options_of("packages", 1'000)),
             held_out = records_of(options_of("packages", 1'000, Split::kHeldOut));
  EXPECT_EQ(train.size() + held_out.size(), 91U) << "each once; the one without a long description is left out";
  EXPECT_GE(held_out.size(), 3U);
  for (const auto* records : {&train, &held_out}) {
    for (const data::Record& record : *records) EXPECT_TRUE(texts.insert(text_of(record.messages[0])).second);
  }
  EXPECT_TRUE(
      texts.contains("tool0: a program that shows the weather.\n\nThe tool number 0 is a program that shows the "
                     "weather, and it is free to "
                     "use.\n\nIt can:\n- start\n- stop"));
  EXPECT_TRUE(texts.contains("last: the last one.\n\nThe end comes without a blank line."));
}

TEST(Packages, AFileWithoutDescriptionsIsRefused) {
  GeneratorOptions options = options_of("packages", 1);
  options.file = std::string(PUNA_SOURCE_DIR) + "/LICENSE";
  EXPECT_THROW(open_generator(options), Error);
}

}  // namespace
}  // namespace puna::synth
