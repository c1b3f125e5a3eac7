// Random models that open again, bounds by hand, and a run of small cases.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "arch/parameters.h"
#include "base/error.h"
#include "bench/bounds.h"
#include "bench/explain.h"
#include "bench/machine.h"
#include "bench/random_model.h"
#include "bench/run.h"
#include "checkpoint/model_source.h"
#include "kernels/quantized/matmul.h"
#include "tests/support/golden.h"

namespace puna::bench {
namespace {

using testing::HasSubstr;

arch::Llama4Config tiny() {
  arch::Llama4Config config = arch::preset("tiny").value();
  config.vision.reset();
  return config;
}

std::unique_ptr<checkpoint::ModelSource> made(const std::filesystem::path& out, const char* rules) {
  RandomModelOptions options;
  options.config = tiny();
  if (*rules != 0) options.rules = quant::preset_rules(rules, "test");
  write_random_model(out, options);
  return checkpoint::open_model(out);
}

TEST(RandomModel, OpensAgainWithWeightsOfTheDeviationThatKeepsItsInput) {
  const test::TemporaryDirectory dir;
  for (const char* rules : {"", "int4", "int8", "fp8"}) {
    const auto source = made(dir.path() / (std::string("m") + rules), rules);
    for (const arch::ParamRow& row : source->rows()) {
      const at::Tensor values = source->load(row, at::kFloat);
      ASSERT_TRUE(values.isfinite().all().item<bool>()) << rules << " " << row.name;
      if (row.kind == arch::ParamKind::kNorm) {
        EXPECT_TRUE(values.eq(1).all().item<bool>()) << row.name;
        continue;
      }
      const bool experts = row.kind == arch::ParamKind::kRoutedExperts,
                 embedding = row.kind == arch::ParamKind::kEmbedding;
      const double in = static_cast<double>(experts ? row.shape[1] : row.shape.back());
      EXPECT_NEAR(values.std().item<double>() * (embedding ? 1 : std::sqrt(in)), 1, 0.12) << rules << " " << row.name;
    }
  }
}

TEST(RandomModel, LeavesWhatIsThereAlone) {
  const test::TemporaryDirectory dir;
  std::ofstream(dir.path() / "mine.txt") << "mine";
  try {
    made(dir.path(), "int8");
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("has something in it"));
  }
}

TEST(Bounds, CountWeightsExpertsAndCacheByHand) {
  ModelWork model;
  model.config.num_hidden_layers = 2;
  model.config.num_attention_heads = 2, model.config.num_key_value_heads = 1, model.config.head_dim = 4;
  model.config.num_local_experts = 4, model.config.num_experts_per_tok = 1;
  model.config.uses_rope = {1, 0};
  model.config.moe_layers = {1};
  model.config.attention_chunk_size = 8;
  model.resident_bytes = 1000, model.head_bytes = 200, model.expert_bytes = 50;
  model.resident_parameters = 400, model.head_parameters = 100, model.expert_parameters = 25, model.expert_layers = 1;
  model.cache_row_bytes = 16;
  // Two sequences at position 9: the chunked layer sees 2 keys, the global one 10.
  const Work decode = work_of(model, {Case::Kind::kDecode, 9, 2});
  EXPECT_DOUBLE_EQ(decode.experts_hit, 4 * (1 - 0.75 * 0.75));
  EXPECT_DOUBLE_EQ(decode.bytes, 1000 + 1.75 * 50 + 2 * (2 + 10) * 16);
  EXPECT_DOUBLE_EQ(decode.operations, 2.0 * (2 * (400 + 25) + 2 * 100) + 4 * 8 * 2 * (2 + 10));
  // Ten tokens: the chunked layer sees 36 + 3 pairs, the global one 55; the head has one row.
  const Work prompt = work_of(model, {Case::Kind::kPrompt, 10, 1});
  EXPECT_DOUBLE_EQ(prompt.operations, 2.0 * (10 * (400 + 25) + 100) + 4 * 8 * (36 + 3 + 55));
  const char* which = "";
  EXPECT_DOUBLE_EQ(bound_seconds({.bytes = 10, .operations = 40, .experts_hit = 0}, {10, 80}, &which), 1);
  EXPECT_STREQ(which, "bytes");
  EXPECT_DOUBLE_EQ(bound_seconds({.bytes = 10, .operations = 400, .experts_hit = 0}, {10, 80}, &which), 5);
  EXPECT_STREQ(which, "operations");
}

TEST(Run, EveryCaseHasAPositiveSpeedThatItsBoundAllows) {
  const test::TemporaryDirectory dir;
  const auto source = made(dir.path() / "m", "");
  const auto model = model::Model::load(*source, {.dtype = at::kFloat, .device = at::kCPU});
  RunOptions options;
  options.cases = {{Case::Kind::kPrompt, 40, 1}, {Case::Kind::kDecode, 0, 1}, {Case::Kind::kDecode, 33, 3}};
  options.rounds = 2;
  const RunResult result = run_cases(*model, model::PageFormat::of(at::kFloat, at::kCPU), options);
  ASSERT_EQ(result.cases.size(), 3U);
  EXPECT_GT(result.read_bandwidth.low, 1e8);
  EXPECT_GT(result.int8_peak.low, 1e8);
  for (const CaseResult& one : result.cases) {
    EXPECT_GT(one.tokens_per_second.low, 0) << one.what.name();
    EXPECT_LE(one.tokens_per_second.low, one.tokens_per_second.high);
    EXPECT_GT(one.fraction.low, 0);
  }
  EXPECT_EQ(result.cases[2].what.name(), "decode 3 at 33");
}

TEST(Explain, NamesTheFormAndTheKernelOfEveryPart) {
  const test::TemporaryDirectory dir;
  for (const char* rules : {"", "int8"}) {
    const auto source = made(dir.path() / (rules[0] ? rules : "dense"), rules);
    const auto model = model::Model::load(*source, {.dtype = at::kFloat, .device = at::kCPU});
    const auto parts = explain(*model, model::PageFormat::of(at::kFloat, at::kCPU));
    const auto part = [&](const char* name) {
      const auto found = std::ranges::find(parts, name, &Explanation::part);
      return found == parts.end() ? Explanation() : *found;
    };
    const std::string isa(kernels::isa_name(kernels::chosen_isa()));
    EXPECT_EQ(part("routers").form, "FP32");
    EXPECT_THAT(part("attention over the cache").kernel, HasSubstr(isa));
    const Explanation experts = part("routed experts");
    EXPECT_THAT(experts.form, rules[0] ? HasSubstr("INT8") : HasSubstr("FP32"));
    EXPECT_THAT(experts.kernel, rules[0] ? HasSubstr(isa + " INT8 dots, rows grouped") : HasSubstr("LibTorch"));
    int64_t weights = 0;
    for (const Explanation& one : parts) weights += one.matrices;
    EXPECT_EQ(weights, std::ssize(arch::parameter_table(model->config())));
  }
}

TEST(Machine, TheMiddleIsTheMedian) {
  const Spread spread({3, 1, 2});
  EXPECT_EQ(spread.low, 1);
  EXPECT_EQ(spread.middle, 2);
  EXPECT_EQ(spread.high, 3);
}

}  // namespace
}  // namespace puna::bench
