// Hugging Face checkpoints open as the model: dense, sharded, INT4, FP8.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>

#include "base/json.h"
#include "base/memory.h"
#include "checkpoint/model_source.h"
#include "checkpoint/save.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "tests/checkpoint/fixtures.h"
#include "tests/support/golden.h"

namespace puna::checkpoint {
namespace {
namespace fs = std::filesystem;

/// The parameter and, for one expert's linear, where it is: what a name in golden.json means.
at::Tensor golden_weight(const ModelSource& model, std::string name) {
  if (name.starts_with("language_model.")) name = name.substr(15);
  const size_t at = name.find(".experts.");
  std::string row_name = name, part;
  int64_t expert = -1;
  if (at != std::string::npos && isdigit(name[at + 9])) {
    expert = std::stoll(name.substr(at + 9));
    part = name.substr(name.find('.', at + 9) + 1);
    row_name = name.substr(0, at + 9) + (part.starts_with("down") ? "down_proj" : "gate_up_proj");
  }
  for (const auto& row : model.rows()) {
    if (row.name != row_name) continue;
    at::Tensor value = model.load(row, at::kFloat);
    if (expert < 0) return value;
    value = value[expert];
    if (part.starts_with("gate")) value = value.chunk(2, 1)[0];
    if (part.starts_with("up")) value = value.chunk(2, 1)[1];
    return value.t().contiguous();
  }
  ADD_FAILURE() << "no row " << row_name;
  return at::zeros({1});
}

TEST(OpenHf, QuantisedRowsEqualTheGoldenDigestsExactly) {
  int checked = 0;
  for (const auto& set : puna::test::golden_sets()) {
    if (!fs::exists(set / "quant")) continue;
    for (const auto& entry : fs::directory_iterator(set / "quant")) {
      SCOPED_TRACE(entry.path().string());
      const auto model = open_model(entry.path());
      const Json golden = read_json_file(entry.path() / "golden.json");
      for (const auto& [name, digest] : golden["dequantised"].items()) {
        SCOPED_TRACE(name);
        const at::Tensor value = golden_weight(*model, name);
        ASSERT_EQ(value.sizes().vec(), digest["shape"].get<std::vector<int64_t>>());
        const at::Tensor flat = value.reshape(-1);
        for (int i = 0; i < 8; ++i) EXPECT_EQ(flat[i].item<double>(), digest["first8"][i].get<double>()) << i;
        const double sum = digest["sum"], abs_sum = digest["abs_sum"];
        EXPECT_NEAR(flat.to(at::kDouble).sum().item<double>(), sum, 1e-12 * abs_sum);
        EXPECT_NEAR(flat.to(at::kDouble).abs().sum().item<double>(), abs_sum, 1e-12 * abs_sum);
        ++checked;
      }
    }
  }
  EXPECT_GE(checked, 30);
}

io::TensorFile stored_tensors(const fs::path& dir) {
  const fs::path index = dir / "model.safetensors.index.json";
  return fs::exists(index) ? io::open_safetensors_index(index) : io::open_safetensors(dir / "model.safetensors");
}

/// Whether the address lies in this process's mapping of a file under `dir`.
bool is_mapped_from(const void* address, const fs::path& dir) {
  std::ifstream maps("/proc/self/maps");
  const auto at = reinterpret_cast<uintptr_t>(address);
  for (std::string line; std::getline(maps, line);) {
    const uintptr_t begin = std::stoull(line, nullptr, 16),
                    end = std::stoull(line.substr(line.find('-') + 1), nullptr, 16);
    if (at >= begin && at < end) return line.find(fs::canonical(dir).string() + "/") != std::string::npos;
  }
  return false;
}

TEST(OpenHf, RowsStoredAsIntegersOrFp8AreReadAsSuch) {
  for (const auto& set : puna::test::golden_sets()) {
    for (const auto& entry : fs::directory_iterator(set / "quant")) {
      SCOPED_TRACE(entry.path().string());
      const auto model = open_model(entry.path());
      size_t packed = 0, quantised = 0;
      for (const auto& row : model->rows()) {
        quantised += model->is_quantised(row);
        if (!model->integers(row)) continue;
        EXPECT_TRUE(at::equal(test::values_of_integers(*model, row), model->load(row, at::kFloat))) << row.name;
        ++packed;
      }
      EXPECT_GT(quantised, 0u);
      // Experts of fbgemm's layout lie [in, out], and FP8 with scales by blocks has no kernel.
      const std::string format = model->format();
      const bool held = format.find("FP8 block") == std::string::npos && format.find("fbgemm") == std::string::npos;
      EXPECT_EQ(packed, held ? quantised : 0);
    }
  }
}

TEST(OpenHf, DenseRowsAreTheStoredTensorsInEveryType) {
  int opened = 0;
  for (const auto& set : puna::test::golden_sets()) {
    for (const auto& entry : fs::directory_iterator(set / "ckpt")) {
      SCOPED_TRACE(entry.path().string());
      const auto model = open_model(entry.path());
      const auto file = stored_tensors(entry.path());
      EXPECT_EQ(model->rows().size(), file.tensors().size());
      EXPECT_EQ(model->stored_bytes(), file.total_bytes());
      for (const auto& row : model->rows()) {
        const at::Tensor want = test::read_float(file, arch::hf_name(model->config(), row));
        for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble})
          EXPECT_TRUE(at::equal(model->load(row, dtype), want.to(dtype))) << row.name << " as " << dtype;
      }
      ++opened;
    }
  }
  EXPECT_GE(opened, 4);
}

TEST(OpenHf, WeightsOfTheWantedTypeAreTheMappingItself) {
  const fs::path dir = puna::test::golden_data() / "ckpt/a_scout";
  auto model = open_model(dir);
  std::vector<at::Tensor> kept;
  for (const auto& row : model->rows()) {
    EXPECT_TRUE(model->is_zero_copy(row, at::kBFloat16)) << row.name;
    EXPECT_FALSE(model->is_zero_copy(row, at::kFloat)) << row.name;
    kept.push_back(model->load(row, at::kBFloat16));
    EXPECT_TRUE(is_mapped_from(kept.back().const_data_ptr(), dir)) << row.name;
    EXPECT_FALSE(is_mapped_from(model->load(row, at::kFloat).const_data_ptr(), dir)) << row.name;
  }
  EXPECT_EQ(loaded_bytes(*model, at::kBFloat16).anonymous, 0);
  EXPECT_EQ(loaded_bytes(*model, at::kBFloat16).mapped, model->stored_bytes());
  EXPECT_EQ(loaded_bytes(*model, at::kFloat).anonymous, 2 * model->stored_bytes());
  // The tensors keep the mapping alive without the model.
  const double before = kept[0].to(at::kDouble).abs().sum().item<double>();
  model.reset();
  EXPECT_TRUE(is_mapped_from(kept[0].const_data_ptr(), dir));
  EXPECT_EQ(kept[0].to(at::kDouble).abs().sum().item<double>(), before);
}

TEST(OpenHf, WritingToAMappedWeightLeavesTheFileAsItIs) {
  puna::test::TemporaryDirectory dir;
  test::EditableCheckpoint::load("ckpt/a_scout").write(dir.path() / "model");
  const std::string before = io::read_file(dir.path() / "model/model.safetensors", 1 << 30);
  {
    const auto model = open_model(dir.path() / "model");
    for (const auto& row : model->rows()) {
      ASSERT_TRUE(model->is_zero_copy(row, at::kBFloat16)) << row.name;
      at::Tensor weight = model->load(row, at::kBFloat16);
      const at::Tensor old = weight.to(at::kFloat);
      weight.add_(1);
      EXPECT_TRUE(at::equal(weight, (old + 1).to(at::kBFloat16))) << row.name;
    }
  }
  EXPECT_TRUE(io::read_file(dir.path() / "model/model.safetensors", 1 << 30) == before);
}

TEST(OpenHf, OpeningALargeCheckpointReadsNoWeight) {
  puna::test::TemporaryDirectory temporary;
  auto config = *arch::preset("tiny");
  config.text.intermediate_size = 12288;
  config.vision.reset();
  const fs::path dir = temporary.path() / "model";
  save_hf(dir, config, at::kBFloat16, [](const auto& row) { return at::zeros(row.shape, at::kBFloat16); });
  const int64_t before = resident_memory_bytes();
  const auto start = std::chrono::steady_clock::now();
  const auto model = open_model(dir);
  std::vector<at::Tensor> weights;
  for (const auto& row : model->rows()) weights.push_back(model->load(row, at::kBFloat16));
  const auto elapsed = std::chrono::steady_clock::now() - start;
  ASSERT_GT(model->stored_bytes(), 32 << 20);
  EXPECT_LT(resident_memory_bytes() - before, model->stored_bytes() / 8);
  EXPECT_LT(std::chrono::duration<double>(elapsed).count(), 2.0);
}

// llm-compressor leaves linears out by its own rules, without always listing them under "ignore".
TEST(OpenHf, ALinearThatTheQuantiserLeftDenseIsReadAsItIs) {
  auto checkpoint = test::EditableCheckpoint::load("quant/w4a16_asym_d");
  const std::string module = "model.layers.1.self_attn.q_proj";
  for (const char* part : {".weight_packed", ".weight_scale", ".weight_shape", ".weight_zero_point"})
    checkpoint.remove(module + part);
  const auto source = open_model(puna::test::golden_data() / "ckpt/d_text");
  const arch::ParamRow& row = test::row_named(*source, module + ".weight");
  checkpoint.add(module + ".weight", DType::F32, row.shape);
  const puna::test::TemporaryDirectory dir;
  checkpoint.write(dir.path());
  const auto model = open_model(dir.path());
  EXPECT_EQ(model->load(row, at::kFloat).abs().max().item<float>(), 0) << "not the dense zeros";
}

TEST(OpenHf, ExpertsAsOneLinearEachAreTheFusedWeightAndGateComesFirst) {
  auto checkpoint = test::EditableCheckpoint::load("ckpt/d_text");
  const auto fused = checkpoint.tensors;
  for (const auto& view : fused) {
    const bool gate_up = view.name.ends_with("experts.gate_up_proj");
    if (!gate_up && !view.name.ends_with("experts.down_proj")) continue;
    io::TensorFile one;
    one.add(view, "test");
    const at::Tensor value = test::read_float(one, view.name);
    const std::string experts = view.name.substr(0, view.name.rfind('.'));
    checkpoint.remove(view.name);
    for (int64_t e = 0; e < value.size(0); ++e) {
      const auto parts = gate_up ? value[e].chunk(2, 1) : std::vector<at::Tensor>{value[e]};
      for (size_t p = 0; p < parts.size(); ++p) {
        auto linear = std::make_shared<at::Tensor>(parts[p].t().contiguous());
        const std::string name = fmt::format("{}.{}.{}_proj.weight", experts, e, !gate_up ? "down" : p ? "up" : "gate");
        checkpoint.tensors.push_back({name,
                                      DType::F32,
                                      linear->sizes().vec(),
                                      {static_cast<const std::byte*>(linear->const_data_ptr()), linear->nbytes()},
                                      linear});
      }
    }
  }
  puna::test::TemporaryDirectory dir;
  checkpoint.write(dir.path() / "model");
  test::expect_same_rows(*open_model(dir.path() / "model"), *open_model(puna::test::golden_data() / "ckpt/d_text"));
}

}  // namespace
}  // namespace puna::checkpoint
