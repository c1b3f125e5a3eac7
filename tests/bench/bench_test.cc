// Random models that open again, bounds by hand, and a run of small cases.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>

#include "arch/parameters.h"
#include "base/error.h"
#include "bench/bounds.h"
#include "bench/explain.h"
#include "bench/machine.h"
#include "bench/random_model.h"
#include "bench/routing.h"
#include "bench/run.h"
#include "checkpoint/model_source.h"
#include "kernels/quantized/matmul.h"
#include "ops/linear.h"
#include "tests/support/golden.h"

namespace puna::bench {
namespace {

using testing::HasSubstr;

arch::Llama4Config tiny() {
  arch::Llama4Config config = arch::preset("tiny").value();
  config.vision.reset();
  return config;
}

std::unique_ptr<checkpoint::ModelSource> made(const std::filesystem::path& out, const char* rules,
                                              bool packed = false) {
  RandomModelOptions options;
  options.packed = packed;
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
      const double scale = embedding ? 1 / std::sqrt(tiny().text.num_hidden_layers) : std::sqrt(in);
      EXPECT_NEAR(values.std().item<double>() * scale, 1, 0.12) << rules << " " << row.name;
      // A mean would be in every output, and make all tokens alike after a few layers.
      const double mean = source->is_quantised(row) ? values.mean().item<double>() : 0;
      EXPECT_LT(std::abs(mean) * scale, 5 / std::sqrt(values.numel())) << row.name;
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

TEST(RandomModel, PackedIsOneFileOfTheSameSizeAndOfValuesOfTheSameDeviation) {
  const test::TemporaryDirectory dir;
  for (const char* rules : {"", "int4", "int8", "fp8"}) {
    const auto plain = made(dir.path() / "plain" / rules, rules);
    const auto packed = made(dir.path() / "packed" / rules, rules, /*packed=*/true);
    const auto load = [](const checkpoint::ModelSource& source) {
      return model::Model::load(source, {.dtype = at::kBFloat16, .device = at::kCPU});
    };
    const auto a = load(*plain), b = load(*packed);
    for (const arch::ParamRow& row : plain->rows()) {
      const ops::Weight &x = a->weights().at(row.name), &y = b->weights().at(row.name);
      ASSERT_EQ(x.packed != nullptr, y.packed != nullptr) << row.name;
      if (x.packed == nullptr) continue;
      EXPECT_EQ(x.packed->num_bytes(), y.packed->num_bytes()) << row.name;
    }
    const at::Tensor rows = at::randn({3, 64}).to(at::kBFloat16);
    const std::string name = "model.layers.1.self_attn.q_proj.weight";
    const at::Tensor y = ops::linear(rows, b->weights().at(name));
    EXPECT_NEAR(y.std().item<double>(), 1, 0.3);
    EXPECT_FALSE(y.equal(ops::linear(rows, b->weights().at("model.layers.2.self_attn.q_proj.weight"))));
  }
}

/// The experts that the model chose for the tokens, by layer.
std::vector<std::vector<int>> chosen(const model::Model& model, const std::vector<int64_t>& tokens) {
  model::Batch batch;
  batch.tokens = at::tensor(tokens, at::kLong);
  batch.sequence_begin = {0, std::ssize(tokens)};
  batch.first_position = {0};
  model::Trace trace;
  model.hidden(batch, &trace);
  std::vector<std::vector<int>> layers;
  for (int64_t layer = 0; layer < model.config().text.num_hidden_layers; ++layer) {
    const at::Tensor selected = trace.at(fmt::format("layers.{}.selected", layer)).contiguous();
    const int* begin = selected.const_data_ptr<int>();
    layers.emplace_back(begin, begin + selected.numel());
  }
  return layers;
}

TEST(Routing, TheModelChoosesWhatTheTokensSay) {
  const test::TemporaryDirectory dir;
  const auto source = made(dir.path() / "m", "int8");
  const auto model = model::Model::load(*source, {.dtype = at::kFloat, .device = at::kCPU});
  const RoutingCodes codes(tiny().text);
  ASSERT_TRUE(has_codes(*model, codes));
  TokenStream stream(codes, Routing::kUniform, 3);
  std::vector<int64_t> tokens(600);
  for (int64_t& token : tokens) token = stream.next();
  const auto layers = chosen(*model, tokens);
  int64_t right = 0;
  for (size_t l = 0; l < layers.size(); ++l)
    for (size_t t = 0; t < tokens.size(); ++t)
      right += layers[l][t] == codes.expert(static_cast<int64_t>(l), tokens[t]);
  EXPECT_GE(right, 0.97 * static_cast<double>(layers.size() * tokens.size()));

  // A model whose routers say something else is told apart.
  at::Tensor router = model->weights().at("model.layers.2.feed_forward.router.weight").dense;
  model->weights().at("model.layers.2.feed_forward.router.weight").dense = router.flip(0).contiguous();
  EXPECT_FALSE(has_codes(*model, codes));
}

TEST(Routing, ZipfTokensHaveTheSharesOfTheirRanksAndComeInRuns) {
  arch::TextConfig config = tiny().text;
  config.num_local_experts = 16, config.hidden_size = 4096, config.vocab_size = 70000;
  const RoutingCodes codes(config);
  ASSERT_EQ(codes.groups(), 4);
  TokenStream stream(codes, Routing::kZipf, 7);
  constexpr int64_t kTokens = 200000;
  double sum = 0;
  for (int d = 1; d <= 16; ++d) sum += 1.0 / d;
  std::vector<int64_t> tokens(kTokens);
  for (int64_t& token : tokens) {
    token = stream.next();
    ASSERT_LT(token, config.vocab_size);
  }
  for (int64_t g = 0; g < 4; ++g) {
    std::vector<double> share(16);
    int64_t same = 0, same_far = 0;
    for (int64_t t = 0; t < kTokens; ++t) {
      share[static_cast<size_t>(codes.digit(tokens[t], g))] += 1.0 / kTokens;
      if (t > 0) same += codes.digit(tokens[t], g) == codes.digit(tokens[t - 1], g);
      if (t >= 16) same_far += codes.digit(tokens[t], g) == codes.digit(tokens[t - 16], g);
    }
    double by_chance = 0;
    for (size_t d = 0; d < 16; ++d) {
      EXPECT_NEAR(share[d], 1 / (sum * static_cast<double>(d + 1)), 0.02) << d;
      by_chance += std::pow(1 / (sum * static_cast<double>(d + 1)), 2);
    }
    // Neighbours of a run (15 of 16 pairs) both take its digit with probability 9 / 16, else they agree by chance.
    const double neighbours = 15.0 / 16 * 9 / 16;
    EXPECT_NEAR(static_cast<double>(same) / kTokens, neighbours + (1 - neighbours) * by_chance, 0.02);
    EXPECT_NEAR(static_cast<double>(same_far) / kTokens, by_chance, 0.02);
  }
  // Every layer has a permutation of its own.
  for (int64_t layer = 0; layer < 4; ++layer) {
    std::set<int64_t> experts;
    const int64_t power = static_cast<int64_t>(std::pow(16, layer));
    for (int64_t d = 0; d < 16; ++d) experts.insert(codes.expert(layer, d * power));
    EXPECT_EQ(experts.size(), 16U);
  }
  EXPECT_DOUBLE_EQ(codes.experts_hit(std::vector<int64_t>{0, 1, 16, 17}), (2 + 2 + 1 + 1) / 4.0);
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

TEST(Run, SkewedRoutingReachesTheStoreAndIsRefusedWhereItIsNotKnown) {
  const test::TemporaryDirectory dir;
  const auto source = made(dir.path() / "m", "int4", /*packed=*/true);
  const auto load = [&](int64_t expert_bytes) {
    model::LoadOptions load = {.dtype = at::kFloat, .device = at::kCPU};
    load.expert_bytes = expert_bytes;
    return model::Model::load(*source, load);
  };
  const auto experts = std::ranges::find(source->rows(), arch::ParamKind::kRoutedExperts, &arch::ParamRow::kind);
  const int64_t block = source->packed(*experts)->places[0].block_bytes;
  RunOptions options;
  options.cases = {{Case::Kind::kDecode, 0, 1}, {Case::Kind::kPrompt, 50, 1}};
  options.rounds = 2, options.steps = 100;
  options.disk_file = dir.path() / "m" / "packed.safetensors";
  double in_memory[2];
  for (const Routing routing : {Routing::kUniform, Routing::kZipf}) {
    const auto model = load(5 * block);  // of 16 experts
    options.routing = routing;
    const RunResult result = run_cases(*model, model::PageFormat::of(at::kFloat, at::kCPU), options);
    const DiskUse& decode = result.cases[0].disk.value();
    EXPECT_DOUBLE_EQ(decode.uses, 4);
    EXPECT_DOUBLE_EQ(result.cases[0].work.experts_hit, 1);
    EXPECT_NEAR(decode.missed_bytes, (decode.uses - decode.in_memory) * static_cast<double>(block), 1);
    EXPECT_GE(decode.read_bytes + 0.1 * static_cast<double>(block), decode.missed_bytes);
    in_memory[routing == Routing::kZipf] = decode.in_memory / decode.uses;
    EXPECT_GT(result.cases[1].work.experts_hit, 3);
    EXPECT_THAT(result.routing, HasSubstr(routing == Routing::kZipf ? "Zipf" : "uniform"));
  }
  EXPECT_GT(in_memory[1], in_memory[0] + 0.1);

  const auto model = load(0);
  const std::string router = "model.layers.2.feed_forward.router.weight";
  model->weights().at(router).dense = model->weights().at(router).dense.flip(0).contiguous();
  try {
    run_cases(*model, model::PageFormat::of(at::kFloat, at::kCPU), options);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("puna bench make"));
  }
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
