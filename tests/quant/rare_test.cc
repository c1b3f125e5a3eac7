// Rarely used experts in fewer bits: which they are, what their errors decide, what is read again.
#include "quant/rare.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "checkpoint/model_source.h"
#include "checkpoint/packed_file.h"
#include "io/file.h"
#include "io/hash.h"
#include "model/batch.h"
#include "model/model.h"
#include "quant/plan.h"
#include "quant/quantise.h"
#include "tests/support/golden.h"

namespace puna::quant {
namespace {
namespace fs = std::filesystem;
using puna::test::golden_data;
using puna::test::TemporaryDirectory;
using testing::HasSubstr;

const fs::path& model() {
  static const fs::path dir = golden_data() / "ckpt" / "b_maverick";
  return dir;
}

/// Two of three layers' experts are used more the higher their number is, those of the others the other way round.
Json profile(const checkpoint::ModelSource& source) {
  Json rows = Json::array();
  for (const arch::ParamRow& row : source.rows()) {
    if (row.kind != arch::ParamKind::kRoutedExperts || row.name.find("down") != row.name.npos) continue;
    Json layer = Json::array();
    for (int64_t e = 0; e < row.shape[0]; ++e) layer.push_back(10 * (rows.size() % 3 == 2 ? row.shape[0] - e : e + 1));
    rows.push_back(layer);
  }
  return {{"rows", rows}};
}

RareExperts chosen(const RareOptions& options, const char* to = "int4") {
  const auto source = checkpoint::open_model(model());
  return choose_rare(source->config(), preset_rules(to, "test"), options, profile(*source), "p.json");
}

std::string error_of(const RareOptions& options, const char* to = "int4") {
  try {
    chosen(options, to);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(RareExperts, AreTheLeastUsedOfEachLayer) {
  const RareExperts rare = chosen({.format = "int2-g32-asym", .share = 0.3});
  const auto source = checkpoint::open_model(model());
  const auto experts = static_cast<size_t>(source->config().text.num_local_experts);
  ASSERT_EQ(experts, 8u);
  std::map<int64_t, std::vector<int64_t>> of_layer;
  for (const auto& [where, expert] : rare.experts) of_layer[where.first].push_back(where.second);
  ASSERT_EQ(of_layer.size(), profile(*source)["rows"].size());
  ASSERT_GE(of_layer.size(), 2u);
  size_t index = 0;
  for (const auto& [layer, numbers] : of_layer)
    EXPECT_EQ(numbers, index++ % 3 == 2 ? (std::vector<int64_t>{6, 7}) : (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(rare.profile_rows, static_cast<int64_t>(360 * of_layer.size()));
  EXPECT_THAT(rare.text(), HasSubstr("8.33% of the profile's rows"));
}

TEST(RareExperts, WhatCannotBeIsSaidInOneLine) {
  EXPECT_THAT(error_of({.format = "int4-g32"}), HasSubstr("no fewer bits than 'int4-g32'"));
  EXPECT_THAT(error_of({.format = "fp8"}), HasSubstr("no fewer bits"));
  EXPECT_THAT(error_of({.format = "int2-g128"}), HasSubstr("differ in their groups"));
  EXPECT_THAT(error_of({.format = "int2-g32"}, "fp8"), HasSubstr("routed experts are 'fp8'"));
  EXPECT_THAT(error_of({.format = "int2-g32"}, "int8"), HasSubstr("differ in their groups"));
  EXPECT_THAT(error_of({.format = "int2-g23"}), HasSubstr("did you mean 'int2-g32'?"));
  EXPECT_THAT(error_of({.format = "int2-g32", .share = 0.1}), HasSubstr("[--rare-share] 0.1 of each layer's experts"));
  const auto source = checkpoint::open_model(model());
  for (const Json& bad : {Json({{"rows", {{1, 2}}}}), Json::array(), Json({{"rows", {{-1}}}})})
    EXPECT_THROW(choose_rare(source->config(), preset_rules("int4", "test"), {.format = "int2-g32"}, bad, "p.json"),
                 Error);
}

std::map<std::string, std::string> weights_of(const fs::path& dir) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::directory_iterator(dir))
    if (entry.path().extension() == ".safetensors" || entry.path().filename() == "config.json")
      out[entry.path().filename().string()] = io::hash_of_file(entry.path());
  return out;
}

QuantiseReport quantise(const fs::path& out, std::optional<RareExperts> rare) {
  QuantiseOptions options;
  options.rules = preset_rules("int4", "test");
  options.rare = std::move(rare);
  options.max_shard_bytes = 100'000;
  return quantise_model(model(), *checkpoint::open_model(model()), out, options);
}

TEST(RareExperts, OpenAgainInTheirFormatWithTheReportedErrors) {
  for (const char* format : {"int2-g32-asym", "int3-g32"}) {
    SCOPED_TRACE(format);
    const TemporaryDirectory dir;
    const QuantiseReport report = quantise(dir.path(), chosen({.format = format}));
    ASSERT_TRUE(report.rare);
    const auto before = checkpoint::open_model(model()), after = checkpoint::open_model(dir.path());
    int fewer = 0;
    for (const arch::ParamRow& row : before->rows()) {
      if (row.kind != arch::ParamKind::kRoutedExperts) continue;
      const auto integers = after->integers(row);
      ASSERT_TRUE(integers) << row.name;
      const at::Tensor a = before->load(row, at::kDouble), b = after->load(row, at::kFloat).to(at::kDouble);
      for (int64_t e = 0; e < row.shape[0]; ++e) {
        const bool rare = report.rare->has(row.layer, e);
        EXPECT_EQ(integers->shapes[e].format.bits, rare ? report.rare->format.bits() : 4);
        const double error = ((a[e] - b[e]).norm() / a[e].norm()).item<double>();
        if (!rare) {
          EXPECT_LT(error, 0.13);
          continue;
        }
        ++fewer;
        // The report's is of gate, up and down together.
        EXPECT_NEAR(error, report.rare->experts.at({row.layer, e}).error, 0.05);
      }
    }
    EXPECT_EQ(fewer, 2 * static_cast<int>(report.rare->experts.size()));
    const Json json = report.json()["rare_experts"];
    EXPECT_EQ(json["experts"].size(), report.rare->experts.size());
    EXPECT_EQ(json["experts"][0]["format"], format);
    EXPECT_THAT(report.text(), HasSubstr(std::string("are ") + format));
  }
}

TEST(RareExperts, PackedAndReadFromDiskGiveTheSameLogits) {
  const TemporaryDirectory dir;
  const fs::path mixed = dir.path() / "mixed", packed = dir.path() / "packed";
  quantise(mixed, chosen({.format = "int2-g32-asym"}));
  const auto source = checkpoint::open_model(mixed);
  checkpoint::write_packed(mixed, *source, packed, 1, nullptr);
  at::manual_seed(1);
  const at::Tensor ids = at::randint(0, 498, {40});  // no image token
  const auto logits = [&](const fs::path& from, int64_t expert_bytes) {
    const auto model = model::Model::load(*checkpoint::open_model(from),
                                          {.dtype = at::kFloat, .device = at::kCPU, .expert_bytes = expert_bytes});
    const at::Tensor out = model->forward(model::Batch::single(ids));
    EXPECT_EQ(model->expert_store() != nullptr, expert_bytes > 0);
    return out;
  };
  const at::Tensor expected = logits(mixed, 0);
  EXPECT_FALSE(expected.isnan().any().item<bool>());
  EXPECT_TRUE(logits(packed, 0).equal(expected));
  EXPECT_TRUE(logits(packed, 64 << 10).equal(expected));
  // Dequantised weights take rows that are not rounded, which moves some rows to other experts.
  const auto dense =
      model::Model::load(*source, {.dtype = at::kFloat, .device = at::kCPU, .weights = model::WeightForm::kDense});
  const at::Tensor wide = dense->forward(model::Batch::single(ids));
  EXPECT_LT((wide - expected).norm().item<double>(), 0.3 * wide.norm().item<double>());
}

TEST(RareExperts, AboveTheLimitStayAsTheOthers) {
  const TemporaryDirectory plain, none, some;
  quantise(plain.path(), std::nullopt);
  const QuantiseReport refused = quantise(none.path(), chosen({.format = "int2-g32", .max_error = 0.01}));
  EXPECT_THAT(refused.text(), HasSubstr("are int2-g32, to which 0.00% of the profile's rows went"));
  EXPECT_THAT(refused.text(), HasSubstr("stay int4-g32, with errors above 0.010: layer"));
  for (const auto& [name, hash] : weights_of(plain.path()))
    if (name != "config.json") {
      EXPECT_EQ(weights_of(none.path())[name], hash) << name;
    }
  // A limit between the errors.
  double low = 1, high = 0;
  for (const auto& [where, expert] : refused.rare->experts)
    low = std::min(low, expert.error), high = std::max(high, expert.error);
  ASSERT_LT(low, high);
  const QuantiseReport parted = quantise(some.path(), chosen({.format = "int2-g32", .max_error = (low + high) / 2}));
  std::map<std::string, int> formats;
  for (const TensorReport& tensor : parted.tensors)
    if (tensor.part == "routed_experts") ++formats[tensor.format];
  EXPECT_GT(formats["int2-g32"], 0);
  EXPECT_LT(formats["int2-g32"], 3 * static_cast<int>(parted.rare->experts.size()));
  EXPECT_EQ(checkpoint::open_model(some.path())->rows().size(), checkpoint::open_model(model())->rows().size());
}

TEST(RareExperts, AStoppedRunKeepsWhatItMeasured) {
  const TemporaryDirectory whole, stopped;
  const auto rare = chosen({.format = "int2-g32-asym"});
  quantise(whole.path(), rare);
  // All is measured and written, then the report has no place.
  fs::create_directories(stopped.path() / "quantization_report.json/x");
  EXPECT_THROW(quantise(stopped.path(), rare), std::exception);
  fs::remove_all(stopped.path() / "quantization_report.json");
  const fs::path state = stopped.path() / "quantize_state.json";
  Json json = read_json_file(state);
  ASSERT_EQ(json["errors"].size(), rare.experts.size());
  const auto other = chosen({.format = "int2-g32-asym", .max_error = 0.3});
  EXPECT_THROW(quantise(stopped.path(), other), Error) << "another limit is another run";
  json["errors"].begin().value() = "none";
  io::write_file(state, json.dump());
  EXPECT_THROW(quantise(stopped.path(), rare), Error);
  json["errors"].begin().value() = 0.125;
  io::write_file(state, json.dump());
  const QuantiseReport report = quantise(stopped.path(), rare);
  EXPECT_EQ(report.rare->experts.begin()->second.error, 0.125) << "it was measured again";
  EXPECT_EQ(weights_of(stopped.path()), weights_of(whole.path()));
}

TEST(RareExperts, AreNamedOneByOneInTheConfig) {
  const RareExperts rare = chosen({.format = "int2-g32", .share = 0.25});
  const auto source = checkpoint::open_model(model());
  const Plan plan = make_plan(source->config(), preset_rules("int4", "test"), DType::BF16, int64_t{1} << 30, rare);
  const Json json = quantization_config(source->config(), plan);
  const Json& two = json["config_groups"]["group_0"];
  EXPECT_EQ(two["weights"]["num_bits"], 2);
  EXPECT_EQ(two["targets"].size(), profile(*source)["rows"].size());
  EXPECT_THAT(two["targets"][0].get<std::string>(), testing::EndsWith("\\.feed_forward\\.experts\\.(0|1)\\."));
  EXPECT_EQ(json["config_groups"]["group_1"]["targets"], Json({"Linear"}));
}

}  // namespace
}  // namespace puna::quant
