#include "quant/rules.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace puna::quant {
namespace {

std::string error_of(std::string_view toml) {
  try {
    parse_rules(toml, "rules");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Rules, PresetsLeaveWhatReadersTakeOnlyDense) {
  for (const char* name : {"int4", "int8", "fp8", "mixed"}) {
    const Rules rules = preset_rules(name, "test");
    EXPECT_TRUE(rules.attention.quantised() && rules.routed_experts.quantised() && rules.shared_expert.quantised() &&
                rules.dense_ffn.quantised());
    for (const Format& kept : {rules.head, rules.embedding, rules.vision, rules.projector}) EXPECT_EQ(kept, Format{});
  }
  EXPECT_EQ(preset_rules("mixed", "test").routed_experts, (Format{Code::kInt4, 32}));
  EXPECT_EQ(preset_rules("mixed", "test").attention, (Format{Code::kInt8}));
}

TEST(Rules, AFileChangesAPreset) {
  const Rules rules = parse_rules("preset = 'int4'\nhead = 'int8'\nrouted_experts = 'int4-g128-asym'\n", "rules");
  EXPECT_EQ(rules.attention, (Format{Code::kInt4, 32}));
  EXPECT_EQ(rules.head, (Format{Code::kInt8}));
  EXPECT_EQ(rules.routed_experts, (Format{Code::kInt4, 128, false}));
  EXPECT_EQ(parse_rules("", "rules"), Rules{});
}

TEST(Rules, MistakesNameTheNearest) {
  EXPECT_EQ(error_of("atention = 'int8'"), "[rules] no key 'atention'; did you mean 'attention'?");
  EXPECT_EQ(error_of("head = 'int4-g23'"), "[rules] no format 'int4-g23'; did you mean 'int4-g32'?");
  EXPECT_EQ(error_of("preset = 'int5'"), "[rules] no preset 'int5'; did you mean 'int4'?");
  EXPECT_EQ(error_of("head = 8"), "[rules] line 1: 'head' is no text in quotes");
  EXPECT_NE(error_of("embedding = 'int8'").find("only as 'keep' or 'bf16'"), std::string::npos);
  EXPECT_NE(error_of("router = 'int8'").find("no key 'router'"), std::string::npos);
  EXPECT_NE(error_of("head = ").find("line 1"), std::string::npos);
}

}  // namespace
}  // namespace puna::quant
