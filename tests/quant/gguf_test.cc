// GGUF: blocks read back by the readers of stored blocks, files by the reader of models.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>

#include "base/error.h"
#include "checkpoint/model_source.h"
#include "io/gguf.h"
#include "kernels/formats/gguf_blocks.h"
#include "model/step.h"
#include "quant/gguf_blocks.h"
#include "quant/gguf_metadata.h"
#include "quant/gguf_model.h"
#include "tests/support/golden.h"

namespace puna::quant {
namespace {
namespace fs = std::filesystem;
using puna::test::golden_data;
using puna::test::TemporaryDirectory;

struct Block {
  const char* name;
  DType dtype;
  double nearest;  // relative error of rounding with the largest value as scale, for the values below
};
constexpr Block kBlocks[] = {{"q8_0", DType::Q8_0, 0.006}, {"q4_0", DType::Q4_0, 0.1}, {"q4_k", DType::Q4_K, 0.085}};

std::vector<float> values(int64_t count, uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(static_cast<size_t>(count));
  for (float& v : out) v = 0.02f * normal(random);
  return out;
}

struct Encoded {
  std::vector<std::byte> bytes;
  std::vector<float> decoded;
  BlockSums sums;
  bool finite;
};

Encoded encode(const Block& block, const std::vector<float>& x, int64_t rows, const float* importance = nullptr,
               int64_t threads = 1) {
  const Format format = parse_format(block.name, "test");
  const int64_t cols = static_cast<int64_t>(x.size()) / rows;
  Encoded out;
  out.bytes.resize(static_cast<size_t>(rows * block_row_bytes(format, cols)));
  out.finite = encode_blocks(format, x.data(), rows, cols, importance, threads, out.bytes.data(), out.sums);
  out.decoded.resize(x.size());
  kernels::dequantize_blocks(block.dtype, out.bytes.data(), static_cast<int64_t>(x.size()), out.decoded.data());
  return out;
}

double squared_distance(std::span<const float> a, std::span<const float> b, size_t cols = 1,
                        const float* weight = nullptr) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double e = static_cast<double>(a[i]) - b[i];
    sum += (weight ? weight[i % cols] : 1) * e * e;
  }
  return sum;
}

TEST(GgufBlocks, AreReadBackWithTheErrorThatIsReportedAndBetterThanNearestRounding) {
  for (const Block& block : kBlocks) {
    SCOPED_TRACE(block.name);
    const auto x = values(48 * 512);
    const Encoded one = encode(block, x, 48), three = encode(block, x, 48, nullptr, 3);
    ASSERT_TRUE(one.finite);
    EXPECT_EQ(one.bytes, three.bytes);
    const double error = squared_distance(x, one.decoded);
    EXPECT_NEAR(error, one.sums.squared_error, 1e-5 * error);
    EXPECT_LT(std::sqrt(error / one.sums.squared_norm), block.nearest);
  }
}

TEST(GgufBlocks, ExtremesAreExactOrRefused) {
  for (const Block& block : kBlocks) {
    SCOPED_TRACE(block.name);
    EXPECT_EQ(encode(block, std::vector<float>(256, 0), 1).decoded, std::vector<float>(256, 0));
    for (const float same : {0.5f, -0.5f, 6e4f}) {
      const auto decoded = encode(block, std::vector<float>(256, same), 1).decoded;
      for (const float v : decoded) EXPECT_NEAR(v, same, 0.02 * std::abs(same));
    }
    for (const float v : encode(block, std::vector<float>(256, 1e-30f), 1).decoded) EXPECT_NEAR(v, 0, 1e-6);
    for (const float bad : {NAN, INFINITY, 7e4f}) {
      auto x = values(256);
      x[77] = bad;
      EXPECT_FALSE(encode(block, x, 1).finite);
    }
  }
}

TEST(GgufBlocks, ImportantColumnsAreNearer) {
  for (const Block& block : kBlocks) {
    SCOPED_TRACE(block.name);
    const auto x = values(64 * 256, 3);
    std::vector<float> weight(256);
    for (size_t c = 0; c < weight.size(); ++c) weight[c] = c % 5 == 0 ? 100 : 1;
    const double equal = squared_distance(x, encode(block, x, 64).decoded, 256, weight.data());
    EXPECT_LT(squared_distance(x, encode(block, x, 64, weight.data()).decoded, 256, weight.data()), 0.9 * equal);
  }
}

// The goldens have no tokenizer beside them: bytes, and the tokens that a model ends with.
text::TokenizerTables byte_tokenizer() {
  text::TokenizerTables tables;
  for (int b = 0; b < 256; ++b) tables.tokens.emplace_back(1, static_cast<char>(b));
  tables.tokens.insert(tables.tokens.end(), {"<|begin_of_text|>", "<|eot|>"});
  tables.is_special.assign(256, 0);
  tables.is_special.insert(tables.is_special.end(), {1, 1});
  return tables;
}

QuantiseReport write(const std::string& name, const fs::path& out, const Rules& rules, DType dense = DType::BF16) {
  QuantiseOptions options;
  options.rules = rules;
  const fs::path path = golden_data() / "ckpt" / name;
  return write_gguf(path, *checkpoint::open_model(path), byte_tokenizer(), out, dense, options);
}

TEST(GgufModel, EveryRowOfTheTextModelOpensAgain) {
  for (const char* name : {"a_scout", "b_maverick", "c_top2", "d_text"}) {
    for (const char* rules : {"", "preset = 'q8_0'\nhead = 'q4_0'\nembedding = 'q8_0'"}) {
      SCOPED_TRACE(std::string(name) + rules);
      TemporaryDirectory dir;
      const Rules parsed = parse_rules(rules, "test");
      const auto before = checkpoint::open_model(golden_data() / "ckpt" / name);
      const QuantiseReport report = write(name, dir.path() / "x.gguf", parsed, before->config().dtype);
      const auto after = checkpoint::open_model(dir.path() / "x.gguf");
      arch::TextConfig expected = before->config().text, got = after->config().text;
      EXPECT_EQ(got.attention_chunk_size, expected.attention_chunk_size);
      EXPECT_EQ(got.uses_rope, expected.uses_rope);
      EXPECT_EQ(got.use_qk_norm, expected.use_qk_norm);
      EXPECT_EQ(got.floor_scale, expected.floor_scale);
      // GGUF has the factors that the scaling gives, in FP32.
      const std::vector<double> f = model::rope_frequencies(got), wanted = model::rope_frequencies(expected);
      ASSERT_EQ(f.size(), wanted.size());
      for (size_t i = 0; i < f.size(); ++i) EXPECT_NEAR(f[i], wanted[i], 1e-6 * wanted[i]);
      double error = 0, reported = 0;
      for (const auto& row : after->rows()) {
        const at::Tensor a = before->load(row, at::kFloat), b = after->load(row, at::kFloat);
        const int64_t columns = row.shape.size() == 3 ? row.shape[1] : row.shape.back();
        const bool kept = columns % 32 != 0;  // no whole blocks
        EXPECT_EQ(at::equal(a, b), kept || !parsed.of(row).quantised()) << row.name;
        error += (a - b).to(at::kDouble).square().sum().item<double>();
      }
      for (const TensorReport& tensor : report.tensors) reported += tensor.squared_error;
      EXPECT_NEAR(error, reported, 1e-4 * reported + 1e-12);
    }
  }
}

TEST(GgufModel, ColumnsWithoutWholeBlocksBecomeQ8OrStay) {
  TemporaryDirectory dir;
  const QuantiseReport report = write("a_scout", dir.path() / "x.gguf", preset_rules("q4_k", "test"));
  EXPECT_FALSE(report.wider.empty());
  EXPECT_EQ(checkpoint::open_model(dir.path() / "x.gguf")->format(), "GGUF Q8_0");
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(GgufModel, NothingIsOverwrittenAndOtherFormatsAreRefused) {
  TemporaryDirectory dir;
  const fs::path out = dir.path() / "x.gguf";
  EXPECT_NE(error_of([&] { write("d_text", out, preset_rules("int4", "test")); }).find("q4_k"), std::string::npos);
  EXPECT_TRUE(fs::is_empty(dir.path()));
  write("d_text", out, {});
  EXPECT_NE(error_of([&] { write("d_text", out, {}); }).find("is there already"), std::string::npos);
}

TEST(GgufMetadata, WhatLlamaCppWouldComputeOtherwiseIsNamed) {
  arch::Llama4Config config = *arch::preset("scout");
  EXPECT_TRUE(beyond_llama_cpp(config).empty());
  EXPECT_TRUE(beyond_llama_cpp(*arch::preset("maverick")).empty());
  const auto names = [&](const std::function<void(arch::TextConfig&)>& change) {
    arch::Llama4Config changed = config;
    change(changed.text);
    const auto found = beyond_llama_cpp(changed);
    return found.size() == 1 ? found[0] : fmt::format("{} of them", found.size());
  };
  using T = arch::TextConfig;
  EXPECT_NE(names([](T& t) { t.use_qk_norm = false; }).find("use_qk_norm"), std::string::npos);
  EXPECT_NE(names([](T& t) { t.attention_chunk_size = 512; }).find("chunk_size 512"), std::string::npos);
  EXPECT_NE(names([](T& t) { t.floor_scale = 100; }).find("floor_scale 100"), std::string::npos);
  EXPECT_NE(names([](T& t) { t.attn_temperature_tuning = false; }).find("temperature off"), std::string::npos);
  EXPECT_NE(names([](T& t) { t.uses_rope[3] = 1; }).find("4th"), std::string::npos);
  EXPECT_NE(names([](T& t) { t.moe_layers.pop_back(); }).find("experts in other"), std::string::npos);
  config.text.max_position_embeddings = 500;  // no position is far enough for these to matter
  EXPECT_EQ(names([](T& t) { t.attention_chunk_size = 512, t.floor_scale = 600; }), "0 of them");
}

}  // namespace
}  // namespace puna::quant
