// Whole models: what is written opens again, is as near as the report says, and an interrupted run goes on.
#include "quant/quantise.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <fstream>
#include <functional>
#include <map>

#include "base/error.h"
#include "base/interrupt.h"
#include "checkpoint/model_source.h"
#include "io/file.h"
#include "io/hash.h"
#include "quant/plan.h"
#include "tests/support/golden.h"

namespace puna::quant {
namespace {
namespace fs = std::filesystem;
using puna::test::golden_data;
using puna::test::TemporaryDirectory;

fs::path checkpoint_dir(const std::string& name) { return golden_data() / "ckpt" / name; }

QuantiseReport quantise(const std::string& name, const fs::path& out, const Rules& rules,
                        int64_t shard = int64_t{1} << 30) {
  QuantiseOptions options;
  options.rules = rules;
  options.max_shard_bytes = shard;
  return quantise_model(checkpoint_dir(name), *checkpoint::open_model(checkpoint_dir(name)), out, options);
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(QuantiseModel, EveryRowOpensAgainWithTheReportedErrorOrUnchanged) {
  const Rules all = parse_rules(
      "preset = 'mixed'\nhead = 'int8-g32'\nvision = 'int8'\nprojector = 'fp8'\ndense_ffn = 'int4-g32-asym'\n"
      "embedding = 'bf16'",
      "test");
  const std::pair<const char*, Rules> cases[] = {{"a_scout", preset_rules("int4", "test")},
                                                 {"b_maverick", preset_rules("fp8", "test")},
                                                 {"b_maverick", preset_rules("mixed", "test")},
                                                 {"d_text", preset_rules("int8", "test")},
                                                 {"b_maverick", all}};
  for (const auto& [name, rules] : cases) {
    SCOPED_TRACE(std::string(name) + rules.json().dump());
    TemporaryDirectory dir;
    const QuantiseReport report = quantise(name, dir.path(), rules);
    const auto before = checkpoint::open_model(checkpoint_dir(name)), after = checkpoint::open_model(dir.path());
    EXPECT_EQ(before->config().text, after->config().text);
    EXPECT_LT(after->stored_bytes(), before->stored_bytes());
    double error = 0, reported = 0;
    for (const auto& row : before->rows()) {
      const at::Tensor a = before->load(row, at::kFloat), b = after->load(row, at::kFloat);
      if (!rules.of(row).quantised() && rules.of(row).code != Code::kBf16) {
        EXPECT_TRUE(at::equal(a, b)) << row.name;
        continue;
      }
      EXPECT_TRUE(!rules.of(row).quantised() || !at::equal(a, b)) << row.name;
      const double relative = ((a - b).norm() / a.norm()).item<double>();
      EXPECT_LT(relative, 0.13) << row.name;
      if (rules.of(row).quantised()) error += (a - b).to(at::kDouble).square().sum().item<double>();
    }
    for (const TensorReport& tensor : report.tensors) reported += tensor.squared_error;
    EXPECT_NEAR(error, reported, 1e-4 * reported);
    EXPECT_TRUE(fs::exists(dir.path() / "quantization_report.json"));
    EXPECT_TRUE(fs::exists(dir.path() / "tokenizer_config.json"));
    EXPECT_FALSE(fs::exists(dir.path() / "quantize_state.json"));
  }
}

TEST(QuantiseModel, RowsWithoutWholeGroupsAreKeptAndSaid) {
  TemporaryDirectory dir;
  const QuantiseReport report = quantise("d_text", dir.path(), parse_rules("attention = 'int4-g128'", "test"));
  EXPECT_FALSE(report.kept.empty());
  const auto before = checkpoint::open_model(checkpoint_dir("d_text")), after = checkpoint::open_model(dir.path());
  for (const auto& row : before->rows())
    EXPECT_TRUE(at::equal(before->load(row, at::kFloat), after->load(row, at::kFloat))) << row.name;
}

// The hashes of the weights of a directory.
std::map<std::string, std::string> weights_of(const fs::path& dir) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::directory_iterator(dir))
    if (entry.path().extension() == ".safetensors")
      out[entry.path().filename().string()] = io::hash_of_file(entry.path());
  return out;
}

TEST(QuantiseModel, AStoppedRunGoesOnToTheSameBytesAndMendsDamagedFiles) {
  constexpr int64_t kShard = 40'000;
  const Rules rules = preset_rules("int4", "test");
  TemporaryDirectory whole, stopped;
  quantise("a_scout", whole.path(), rules, kShard);
  const auto expected = weights_of(whole.path());
  ASSERT_GE(expected.size(), 4u);

  std::atomic<bool> stop = true;
  QuantiseOptions options;
  options.rules = rules, options.max_shard_bytes = kShard, options.interrupt = &stop;
  const auto source = checkpoint::open_model(checkpoint_dir("a_scout"));
  EXPECT_THROW(quantise_model(checkpoint_dir("a_scout"), *source, stopped.path(), options), Interrupted);
  EXPECT_TRUE(weights_of(stopped.path()).empty());
  EXPECT_TRUE(fs::exists(stopped.path() / "quantize_state.json"));
  const std::string other =
      error_of([&] { quantise("a_scout", stopped.path(), preset_rules("int8", "test"), kShard); });
  EXPECT_NE(other.find("part of another run"), std::string::npos) << other;
  std::ofstream(stopped.path() / "model-00001-of-00004.safetensors.tmp.1.2") << "half";

  // A directory in the report's place: all weights are finished, then the run fails. One file is damaged after that.
  fs::create_directories(stopped.path() / "quantization_report.json/x");
  EXPECT_THROW(quantise("a_scout", stopped.path(), rules, kShard), std::exception);
  EXPECT_FALSE(fs::exists(stopped.path() / "config.json"));
  fs::remove_all(stopped.path() / "quantization_report.json");
  std::fstream(stopped.path() / expected.begin()->first, std::ios::in | std::ios::out | std::ios::binary)
      .seekp(-1, std::ios::end)
      .put('!');
  EXPECT_EQ(quantise("a_scout", stopped.path(), rules, kShard).shards_found, expected.size() - 1);
  EXPECT_EQ(weights_of(stopped.path()), expected);

  EXPECT_NE(error_of([&] { quantise("a_scout", stopped.path(), rules, kShard); }).find("already holds a model"),
            std::string::npos);
}

TEST(QuantisationConfig, MostWeightsAreTheLinearsAndKeptOnesAreIgnored) {
  const auto source = checkpoint::open_model(checkpoint_dir("b_maverick"));
  const Plan plan = make_plan(source->config(), preset_rules("mixed", "test"), DType::BF16, int64_t{1} << 30);
  const Json json = quantization_config(source->config(), plan);
  EXPECT_EQ(json["format"], "pack-quantized");
  EXPECT_EQ(json["config_groups"]["group_1"]["targets"], Json({"Linear"}));
  const std::string ignored = json["ignore"].dump(), int8 = json["config_groups"]["group_0"]["targets"].dump();
  EXPECT_NE(ignored.find("router"), std::string::npos);
  EXPECT_NE(ignored.find("lm_head"), std::string::npos);
  EXPECT_EQ(ignored.find("language_model\\\\.model\\\\.layers\\\\.\\\\d+\\\\.self_attn"), std::string::npos) << ignored;
  EXPECT_NE(int8.find("re:language_model\\\\.model\\\\.layers\\\\.\\\\d+\\\\.self_attn\\\\.q_proj$"), std::string::npos)
      << int8;
  const Plan kept = make_plan(source->config(), Rules{}, DType::BF16, int64_t{1} << 30);
  EXPECT_TRUE(quantization_config(source->config(), kept).is_null());
}

}  // namespace
}  // namespace puna::quant
