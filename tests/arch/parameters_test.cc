// The parameter table against real checkpoints' headers, and the names in every format.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>

#include "arch/layer_plan.h"
#include "arch/names.h"
#include "arch/parameters.h"
#include "tests/arch/support.h"
#include "tests/support/golden.h"

namespace puna::arch {
namespace {

using Shapes = std::map<std::string, std::vector<int64_t>>;

// Names and shapes in all safetensors files of a directory: eight bytes of length, then JSON.
Shapes stored_shapes(const std::filesystem::path& dir) {
  Shapes shapes;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    if (!entry.path().filename().string().starts_with("model") || entry.path().extension() != ".safetensors") continue;
    std::ifstream in(entry.path(), std::ios::binary);
    uint64_t length = 0;
    in.read(reinterpret_cast<char*>(&length), sizeof(length));
    std::string header(length, '\0');
    in.read(header.data(), static_cast<std::streamsize>(length));
    const Json tensors = Json::parse(header);
    for (const auto& [name, tensor] : tensors.items())
      if (name != "__metadata__") shapes[name] = tensor["shape"].get<std::vector<int64_t>>();
  }
  return shapes;
}

Llama4Config config_of(const std::filesystem::path& dir) {
  return config_from_hf(read_json_file(dir / "config.json"), dir.string());
}

TEST(ParameterTable, IsExactlyWhatGoldenCheckpointsHold) {
  int checked = 0;
  for (const auto& set : test::golden_sets()) {
    for (const auto& entry : std::filesystem::directory_iterator(set / "ckpt")) {
      const Llama4Config config = config_of(entry.path());
      Shapes table;
      for (const ParamRow& row : parameter_table(config)) table[hf_name(config, row)] = row.shape;
      EXPECT_EQ(table, stored_shapes(entry.path())) << entry.path();
      ++checked;
    }
  }
  EXPECT_GE(checked, 4);
}

// Serving notes: "fused gate_up_proj [E, hidden, 2*ff] ...; FP8/INT4 checkpoints split per expert".
TEST(ParameterTable, UnfusedNamesAreThoseOfTheQuantisedGoldens) {
  int checked = 0;
  for (const auto& set : test::golden_sets()) {
    for (const auto& entry : std::filesystem::directory_iterator(set / "quant")) {
      const auto dir = entry.path();
      if (!std::filesystem::exists(dir / "config.json")) continue;
      std::set<std::string> stored;
      for (const auto& [name, shape] : stored_shapes(dir)) stored.insert(name.substr(0, name.find(".weight")));
      if (stored.contains("language_model.model.layers.1.feed_forward.experts.gate_up_proj")) continue;  // fused FP8
      std::set<std::string> expected;
      const Llama4Config config = config_of(dir);
      for (const ParamRow& row : parameter_table(config)) {
        const auto forms = stored_forms(config, row, NameFormat::kHuggingFaceUnfused);
        for (const StoredPart& part : forms.at(0)) expected.insert(part.name.substr(0, part.name.find(".weight")));
      }
      EXPECT_EQ(expected, stored) << dir;
      ++checked;
    }
  }
  EXPECT_GE(checked, 1);
}

std::vector<Llama4Config> presets() {
  std::vector<Llama4Config> out;
  for (const std::string& name : preset_names()) out.push_back(*preset(name));
  out.push_back(config_from_hf(legacy_text(), "x"));
  return out;
}

TEST(ParameterNames, HuggingFaceNamesGoBackAndForth) {
  for (const Llama4Config& config : presets()) {
    std::set<std::string> names;
    for (const ParamRow& row : parameter_table(config)) {
      EXPECT_EQ(from_hf_name(hf_name(config, row)), row.name);
      EXPECT_EQ(from_hf_name(row.name), row.name);
      EXPECT_TRUE(names.insert(row.name).second) << row.name << " twice";
    }
  }
}

TEST(ParameterNames, OthersAreRefused) {
  for (const char* name :
       {"", "model.", "model.layers.0", "model.layers.x.input_layernorm.weight",
        "model.layers.01.input_layernorm.weight", "model.layers.-1.input_layernorm.weight",
        "model.layers.99999999999999999999.input_layernorm.weight", "language_model.vision_model.class_embedding",
        "language_model.language_model.lm_head.weight", "model.layers.0.input_layernorm.weight.x",
        "model.layers.0.self_attn.q_proj.bias", "lm_head.bias", "model.layers.#.input_layernorm.weight",
        "language_model."})
    EXPECT_EQ(from_hf_name(name), "") << name;
}

// Every stored name serves one row only (a fused tensor: one slice per row), and the parts fill their row exactly.
void check_format(const Llama4Config& config, NameFormat format) {
  std::set<std::tuple<std::string, int64_t, int64_t>> seen;
  for (const ParamRow& row : parameter_table(config)) {
    const auto forms = stored_forms(config, row, format);
    EXPECT_FALSE(forms.empty()) << row.name;
    for (const StoredForm& form : forms) {
      std::map<int, int64_t> width;
      for (const StoredPart& part : form) {
        EXPECT_TRUE(seen.insert({part.name, part.slice_begin, part.slice_end}).second) << part.name;
        std::vector<int64_t> shape = part.shape;
        if (part.transposed) std::swap(shape[shape.size() - 2], shape[shape.size() - 1]);
        width[part.expert] += shape.back();
        if (part.expert < 0) {
          ASSERT_EQ(shape.size(), row.shape.size()) << part.name;
        }
        EXPECT_LT(part.file_axis, static_cast<int>(part.shape.size())) << part.name;
        EXPECT_LT(part.slice_begin, part.slice_end);
        EXPECT_LE(part.slice_end, part.slice_total);
      }
      for (const auto& [expert, columns] : width) EXPECT_EQ(columns, row.shape.back()) << row.name;
      EXPECT_TRUE(width.size() == 1 || static_cast<int64_t>(width.size()) == row.shape[0]) << row.name;
    }
  }
}

TEST(ParameterNames, EveryFormatFillsEveryRowOnce) {
  for (const Llama4Config& config : presets()) {
    check_format(config, NameFormat::kHuggingFace);
    check_format(config, NameFormat::kHuggingFaceUnfused);
    check_format(config, NameFormat::kMeta);
    Llama4Config text = config;
    text.vision.reset();
    check_format(text, NameFormat::kGguf);
  }
}

ParamRow row_named(const Llama4Config& config, std::string_view name) {
  for (const ParamRow& row : parameter_table(config))
    if (row.name == name) return row;
  throw InternalError(std::string(name));
}

TEST(ParameterNames, MetasFusedTensorsAreSliced) {
  const Llama4Config c = *preset("scout");
  const auto forms = stored_forms(c, row_named(c, "model.layers.5.self_attn.k_proj.weight"), NameFormat::kMeta);
  ASSERT_EQ(forms.size(), 2u);
  const StoredPart& fused = forms[0].at(0);
  EXPECT_EQ(fused.name, "layers.5.attention.wqkv.weight");
  EXPECT_EQ(fused.slice_begin, 40);
  EXPECT_EQ(fused.slice_end, 48);
  EXPECT_EQ(fused.slice_total, 56);
  EXPECT_EQ(forms[1].at(0).name, "layers.5.attention.wk.weight");
}

TEST(ParameterNames, MetasExpertsAreTwoTensorsSideBySide) {
  const Llama4Config c = *preset("scout");
  const auto form =
      stored_forms(c, row_named(c, "model.layers.7.feed_forward.experts.gate_up_proj"), NameFormat::kMeta).at(0);
  ASSERT_EQ(form.size(), 2u);
  EXPECT_EQ(form[0].name, "layers.7.feed_forward.experts.moe_w_in_eD_F");
  EXPECT_EQ(form[1].name, "layers.7.feed_forward.experts.moe_w_swiglu_eD_F");
  EXPECT_EQ(form[0].shape, (std::vector<int64_t>{16, 5120, 8192}));
  EXPECT_EQ(form[0].file_axis, 2);
  EXPECT_TRUE(form[0].merged_experts);
}

TEST(ParameterNames, StatisticsOfMetasRouterAreNoParameters) {
  for (const char* name : {"running_gate_stats_3E", "global_gate_stats_3E", "expert_activation_DE"}) {
    EXPECT_TRUE(is_known_extra(fmt::format("layers.1.feed_forward.{}", name), NameFormat::kMeta)) << name;
    EXPECT_FALSE(is_known_extra(fmt::format("layers.1.feed_forward.{}", name), NameFormat::kHuggingFace)) << name;
  }
}

TEST(ParameterNames, GgufHasNoVisionAndTransposesExperts) {
  const Llama4Config c = *preset("tiny");
  EXPECT_TRUE(stored_forms(c, row_named(c, "vision_model.class_embedding"), NameFormat::kGguf).empty());
  const auto form =
      stored_forms(c, row_named(c, "model.layers.1.feed_forward.experts.down_proj"), NameFormat::kGguf).at(0);
  EXPECT_EQ(form.at(0).name, "blk.1.ffn_down_exps.weight");
  EXPECT_EQ(form.at(0).shape, (std::vector<int64_t>{4, 64, 96}));
  EXPECT_TRUE(form.at(0).transposed);
  EXPECT_FALSE(is_known_extra("rope_freqs.weight", NameFormat::kMeta));
}

TEST(LayerPlanTest, MaverickAlternatesAndLeavesEveryFourthLayerGlobal) {
  const auto plan = layer_plan(preset("maverick")->text);
  ASSERT_EQ(plan.size(), 48u);
  for (const LayerPlan& layer : plan) {
    const bool global = layer.index % 4 == 3;
    EXPECT_EQ(layer.rope, !global);
    EXPECT_EQ(layer.chunked, !global);
    EXPECT_EQ(layer.temperature, global);
    EXPECT_EQ(layer.moe, layer.index % 2 == 1);
    EXPECT_FALSE(layer.qk_norm);
  }
}

}  // namespace
}  // namespace puna::arch
