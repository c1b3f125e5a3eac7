// Checkpoints that are wrong: one clear Error, naming all that is wrong.
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <memory>

#include "base/error.h"
#include "checkpoint/stored_matrix.h"
#include "tests/checkpoint/fixtures.h"
#include "tests/support/golden.h"

namespace puna::checkpoint {
namespace {
namespace fs = std::filesystem;
using puna::test::golden_data;
using puna::test::TemporaryDirectory;
using test::EditableCheckpoint;
using test::error_of;

std::string open_error(const EditableCheckpoint& checkpoint) {
  TemporaryDirectory dir;
  checkpoint.write(dir.path() / "model");
  return error_of([&] { open_model(dir.path() / "model"); });
}

#define EXPECT_CONTAINS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(Errors, MissingExtraMisshapenAndMistypedAreToldTogether) {
  auto checkpoint = EditableCheckpoint::load("ckpt/d_text");
  checkpoint.remove("model.norm.weight");
  checkpoint.at("model.layers.0.self_attn.q_proj.weight").shape = {32, 128};
  checkpoint.add("model.layers.0.self_attn.q_proj.bias", DType::F32, {64});
  const size_t bytes = checkpoint.at("model.layers.1.input_layernorm.weight").bytes.size();
  checkpoint.remove("model.layers.1.input_layernorm.weight");
  checkpoint.add("model.layers.1.input_layernorm.weight", DType::I64, {static_cast<int64_t>(bytes) / 4});
  const std::string error = open_error(checkpoint);
  EXPECT_CONTAINS(error, "model.safetensors]");
  EXPECT_CONTAINS(error, "1 missing: model.norm.weight");
  EXPECT_CONTAINS(error, "1 not of this model: model.layers.0.self_attn.q_proj.bias");
  EXPECT_CONTAINS(error, "model.layers.0.self_attn.q_proj.weight has shape [32, 128], expected [64, 64]");
  EXPECT_CONTAINS(error, "model.layers.1.input_layernorm.weight is I64, expected BF16 or F16 or F32 or F64");
  EXPECT_EQ(error.find('\n'), std::string::npos);
}

TEST(Errors, LongListsAreCutWithTheirCount) {
  auto checkpoint = EditableCheckpoint::load("ckpt/d_text");
  checkpoint.tensors.clear();
  const std::string error = open_error(checkpoint);
  EXPECT_CONTAINS(error, " and ");
  EXPECT_CONTAINS(error, " more");
  EXPECT_LT(error.size(), 1500u);
}

TEST(Errors, KnownBuffersOfOtherProgramsAreTolerated) {
  auto checkpoint = EditableCheckpoint::load("ckpt/d_text");
  checkpoint.add("model.layers.0.self_attn.rotary_emb.inv_freq", DType::F32, {8});
  EXPECT_EQ(open_error(checkpoint), "");
}

TEST(Errors, TheConfigAndNotTheFileDecidesTheArchitecture) {
  auto checkpoint = EditableCheckpoint::load("ckpt/d_text");
  checkpoint.config["num_hidden_layers"] = checkpoint.config["num_hidden_layers"].get<int>() - 1;
  for (const char* key : {"layer_types", "no_rope_layers", "moe_layers"}) checkpoint.config.erase(key);
  EXPECT_CONTAINS(open_error(checkpoint), "not of this model");
}

TEST(Errors, HostileSizesInTheConfigAreOneError) {
  for (const auto& [key, value] : std::vector<std::pair<const char*, Json>>{{"hidden_size", int64_t{1} << 62},
                                                                            {"num_local_experts", 100'000'000},
                                                                            {"num_hidden_layers", 2'000'000'000},
                                                                            {"vocab_size", -1},
                                                                            {"intermediate_size", int64_t{1} << 40}}) {
    auto checkpoint = EditableCheckpoint::load("ckpt/d_text");
    checkpoint.config[key] = value;
    EXPECT_NE(open_error(checkpoint), "") << key;
  }
}

TEST(Errors, AFileAloneSaysWhatItNeeds) {
  TemporaryDirectory dir;
  EditableCheckpoint::load("ckpt/d_text").write(dir.path());
  EXPECT_NO_THROW(open_model(dir.path() / "model.safetensors"));
  EXPECT_NO_THROW(open_model(dir.path() / "config.json"));
  fs::remove(dir.path() / "config.json");
  EXPECT_CONTAINS(error_of([&] { open_model(dir.path() / "model.safetensors"); }), "needs the model's config.json");
  EXPECT_CONTAINS(error_of([&] { open_model(dir.path()); }), "holds no model");
  std::ofstream(dir.path() / "consolidated.00.pth") << "x";
  EXPECT_CONTAINS(error_of([&] { open_model(dir.path() / "consolidated.00.pth"); }), "needs the model's params.json");
  EXPECT_CONTAINS(error_of([&] { open_model(dir.path() / "absent"); }), "no such file");
  std::ofstream(dir.path() / "notes.txt") << "x";
  EXPECT_CONTAINS(error_of([&] { open_model(dir.path() / "notes.txt"); }), "is no model that Puna reads");
}

TEST(Errors, QuantisedTensorsMustBeWhatTheConfigSays) {
  const std::string linear = "model.layers.0.self_attn.q_proj.";
  const auto golden = EditableCheckpoint::load("quant/w4a16_asym_d");
  auto without = [&](const std::string& part) {
    auto checkpoint = golden;
    checkpoint.remove(linear + part);
    return open_error(checkpoint);
  };
  EXPECT_EQ(open_error(golden), "");
  for (const char* part : {"weight_packed", "weight_scale", "weight_zero_point", "weight_shape"})
    EXPECT_CONTAINS(without(part), "1 missing: " + linear + part);

  auto checkpoint = golden;
  checkpoint.remove(linear + "weight_shape");
  checkpoint.add(linear + "weight_shape", DType::I64, {2});
  EXPECT_CONTAINS(open_error(checkpoint), "says [0, 0], expected [64, 64]");

  checkpoint = golden;
  checkpoint.add(linear + "weight_g_idx", DType::I32, {64});
  EXPECT_CONTAINS(open_error(checkpoint), "weight_g_idx");

  checkpoint = golden;
  checkpoint.config.erase("quantization_config");
  EXPECT_CONTAINS(open_error(checkpoint), "missing: model.layers.0.self_attn.q_proj.weight");

  checkpoint = golden;  // neither packed nor dense
  checkpoint.config["quantization_config"]["ignore"] = Json::array();
  EXPECT_EQ(open_error(checkpoint), "") << "dense linears are read though the config does not list them";
  checkpoint.remove("model.layers.0.feed_forward.router.weight");
  EXPECT_CONTAINS(open_error(checkpoint), "feed_forward.router.weight_packed");
}

TEST(Errors, UnsupportedQuantisationIsNamed) {
  struct Case {
    Json::json_pointer where;
    Json value;
    const char* expected;
  };
  const std::vector<Case> cases = {
      {Json::json_pointer("/quant_method"), "gptq", "quant_method 'gptq' is not supported"},
      {Json::json_pointer("/format"), "nvfp4-pack-quantized", "nvfp4-pack-quantized"},
      {Json::json_pointer("/quantization_status"), "frozen", "quantization_status is 'frozen'"},
      {Json::json_pointer("/config_groups/group_0/weights/actorder"), "group", "actorder 'group'"},
      {Json::json_pointer("/config_groups/group_0/weights/num_bits"), 5, "5-bit"},
      {Json::json_pointer("/config_groups/group_0/weights/num_bits"), "x", "'num_bits' is \"x\""},
      {Json::json_pointer("/config_groups/group_0/weights/group_size"), 0, "positive group_size"},
      {Json::json_pointer("/config_groups/group_0/weights/strategy"), "token", "strategy 'token'"},
      {Json::json_pointer("/config_groups"), 5, "no config_groups"},
      {Json::json_pointer("/ignore"), {"re:("}, "no regular expression"},
      {Json::json_pointer("/ignore"), {7}, "expected strings"},
      {Json::json_pointer("/ignore"), {"re:(.*.*.*.*.*.*.*.*)*x"}, "takes too long"},
  };
  for (const auto& c : cases) {
    auto checkpoint = EditableCheckpoint::load("quant/w4a16_asym_d");
    checkpoint.config["quantization_config"][c.where] = c.value;
    EXPECT_CONTAINS(open_error(checkpoint), c.expected);
  }
}

TEST(Errors, ABlockLargerThanAnyWeightDoesNotPassWithoutScales) {
  const auto golden = EditableCheckpoint::load("quant/fp8_ct_b");
  const auto with_block = [&](int64_t rows, int64_t cols, int64_t scale_rows) {
    auto checkpoint = golden;
    auto& weights = checkpoint.config["quantization_config"]["config_groups"]["group_0"]["weights"];
    weights["strategy"] = "block";
    weights["block_structure"] = {rows, cols};
    for (const auto& view : golden.tensors) {
      if (!view.name.ends_with(".weight_scale")) continue;
      const int64_t in = checkpoint.at(view.name.substr(0, view.name.size() - 6)).shape[1];
      checkpoint.remove(view.name);
      checkpoint.add(view.name, DType::F32, {scale_rows, in / cols + (in % cols != 0)});
    }
    TemporaryDirectory dir;
    checkpoint.write(dir.path() / "model");
    return error_of([&] {
      const auto model = open_model(dir.path() / "model");
      for (const auto& row : model->rows()) model->load(row, at::kFloat);
    });
  };
  EXPECT_EQ(with_block(int64_t{1} << 31, 128, 1), "");
  for (const int64_t huge : {(int64_t{1} << 31) + 1, std::numeric_limits<int64_t>::max()}) {
    EXPECT_CONTAINS(with_block(huge, 128, 0), "block_structure");
    EXPECT_CONTAINS(with_block(128, huge, 1), "block_structure");
  }
}

TEST(Errors, AQuantisedMatrixWithoutEnoughScalesIsRefused) {
  const std::vector<std::byte> values(64 * 64), scales(4 * 64), zeros(64);
  Quantised q{.coding = Coding::kInt8, .values = values, .row_bytes = 64, .scales = scales, .zero_points = {}};
  q.block_cols = 64;
  EXPECT_NO_THROW(quantised_matrix(64, 64, q, nullptr));
  q.block_cols = 32;
  EXPECT_THROW(quantised_matrix(64, 64, q, nullptr), InternalError);
  q.block_cols = 64;
  q.zero_points = std::span(zeros).first(63);
  EXPECT_THROW(quantised_matrix(64, 64, q, nullptr), InternalError);
  q.zero_points = zeros;
  EXPECT_NO_THROW(quantised_matrix(64, 64, q, nullptr));
  EXPECT_THROW(quantised_matrix(65, 64, q, nullptr), InternalError);
}

// The message when all rows of a checkpoint are read as the integers that are stored.
std::string integers_error(const EditableCheckpoint& checkpoint) {
  TemporaryDirectory dir;
  checkpoint.write(dir.path() / "model");
  return error_of([&] {
    const auto model = open_model(dir.path() / "model");
    for (const auto& row : model->rows())
      if (model->integers(row)) test::values_of_integers(*model, row);
  });
}

TEST(Errors, ScalesThatNoQuantiserWritesAreRefusedAndNamed) {
  const std::string module = "model.layers.1.self_attn.k_proj.";
  const auto golden = EditableCheckpoint::load("quant/w4a16_asym_d");
  EXPECT_EQ(integers_error(golden), "");
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 0.0f}) {
    auto checkpoint = golden;
    auto& scales = checkpoint.at(module + "weight_scale");
    const auto bytes = std::make_shared<std::vector<std::byte>>(scales.bytes.begin(), scales.bytes.end());
    const uint32_t bits = std::bit_cast<uint32_t>(bad);
    const size_t size = scales.dtype == DType::F32 ? 4 : 2;  // the upper half of an FP32 is the BF16
    std::memcpy(bytes->data() + size, reinterpret_cast<const std::byte*>(&bits) + 4 - size, size);
    scales.bytes = *bytes;
    scales.owner = bytes;
    const std::string error = integers_error(checkpoint);
    EXPECT_CONTAINS(error, "model.layers.1.self_attn.k_proj.weight");
    EXPECT_CONTAINS(error, fmt::format("the scale of output 0, input 32 is {}", bad));
    EXPECT_CONTAINS(error, "damaged");
  }
  // Weights of value 0 may have the scale 0.
  const std::vector<std::byte> values(2 * 32, std::byte{5}), scales(2 * 4), zeros(2, std::byte{5});
  Quantised q{.coding = Coding::kInt8, .values = values, .row_bytes = 32, .scales = scales, .zero_points = zeros};
  q.block_cols = 32;
  std::vector<int8_t> integers(64), zero_points(2);
  std::vector<float> read(2, 1);
  quantised_matrix(2, 32, q, nullptr)->read_integers(0, 2, {integers.data(), read.data(), zero_points.data()}, "x");
  EXPECT_EQ(read, std::vector<float>(2, 0));
}

TEST(Errors, ScalesOfAnotherShapeAreRefused) {
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{64, 1}, {32, 2}, {2, 64}, {64}}) {
    auto checkpoint = EditableCheckpoint::load("quant/w4a16_asym_d");
    const DType dtype = checkpoint.at("model.layers.0.self_attn.q_proj.weight_scale").dtype;
    checkpoint.remove("model.layers.0.self_attn.q_proj.weight_scale");
    checkpoint.add("model.layers.0.self_attn.q_proj.weight_scale", dtype, shape);
    EXPECT_CONTAINS(open_error(checkpoint), "model.layers.0.self_attn.q_proj.weight_scale has shape");
  }
  for (const int group : {16, 48}) {
    auto checkpoint = EditableCheckpoint::load("quant/w4a16_asym_d");
    checkpoint.config["quantization_config"]["config_groups"]["group_0"]["weights"]["group_size"] = group;
    EXPECT_CONTAINS(open_error(checkpoint), "weight_scale has shape");
  }
}

TEST(Errors, GroupsThatNoKernelHasAreNotIntegersForIt) {
  const std::vector<std::byte> values(2 * 512), scales(2 * 64 * 4);
  Quantised q{.coding = Coding::kInt8, .values = values, .row_bytes = 512, .scales = scales, .zero_points = {}};
  const std::map<int64_t, int64_t> kernel_group_of = {{32, 32}, {64, 32}, {96, 32}, {128, 128}, {256, 128}};
  for (const int64_t group : {16, 32, 48, 64, 96, 128, 200, 256}) {
    q.block_cols = group;
    const auto format = quantised_matrix(2, 512, q, nullptr)->integer_format();
    ASSERT_EQ(format.has_value(), kernel_group_of.contains(group)) << group;
    if (format) {
      EXPECT_EQ(format->group, kernel_group_of.at(group));
    }
  }
}

}  // namespace
}  // namespace puna::checkpoint
