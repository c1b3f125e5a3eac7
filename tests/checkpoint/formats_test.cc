// The same model comes out of every format: Meta's shards, GGUF, quantised checkpoints of real packers.
#include <gtest/gtest.h>

#include "checkpoint/scalar_type.h"
#include "checkpoint/stored_matrix.h"
#include "io/safetensors.h"
#include "tests/checkpoint/fixtures.h"
#include "tests/support/golden.h"

namespace puna::checkpoint {
namespace {
namespace fs = std::filesystem;
using puna::test::golden_data;
using puna::test::TemporaryDirectory;

TEST(ScalarType, TypesOfFilesAndTensorsCorrespond) {
  int known = 0;
  for (int i = 0; i <= static_cast<int>(DType::Q6_K); ++i) {
    const auto dtype = static_cast<DType>(i);
    const auto type = scalar_type(dtype);
    if (!type) continue;
    EXPECT_EQ(dtype_of(*type), dtype) << dtype_name(dtype);
    EXPECT_EQ(static_cast<int64_t>(c10::elementSize(*type)), dtype_bytes(dtype, 1)) << dtype_name(dtype);
    ++known;
  }
  EXPECT_EQ(known, 12);
  EXPECT_EQ(scalar_type(DType::Q4_0), std::nullopt);
  EXPECT_EQ(dtype_of(at::kComplexFloat), std::nullopt);
  EXPECT_EQ(default_compute_type(DType::F32), at::kFloat);
  EXPECT_EQ(default_compute_type(DType::F16), at::kBFloat16);
  EXPECT_EQ(default_compute_type(DType::BF16), at::kBFloat16);
}

TEST(Meta, RowsEqualTheHuggingFaceCheckpointsTheyWereMadeFrom) {
  TemporaryDirectory dir;
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"a_scout", "1"}, {"a_scout", "2"}, {"b_maverick", "2"}, {"b_maverick", "1:plain"}, {"d_text", "2:plain"}};
  std::vector<std::string> arguments = {dir.path().string()};
  for (const auto& [checkpoint, options] : cases)
    arguments.push_back((golden_data() / "ckpt" / checkpoint).string() + ":" + options);
  if (!test::run_script("make_meta_fixture.py", arguments)) GTEST_SKIP() << "needs .venv with torch and safetensors";
  for (size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(arguments[i + 1]);
    const auto meta = open_model(dir.path() / std::to_string(i));
    const auto hf = open_model(golden_data() / "ckpt" / cases[i].first);
    test::expect_same_rows(*meta, *hf);
    EXPECT_TRUE(meta->format().starts_with("Meta ")) << meta->format();
  }
}

TEST(Meta, AMissingShardIsAnError) {
  TemporaryDirectory dir;
  const std::string job = (golden_data() / "ckpt/d_text").string() + ":2";
  if (!test::run_script("make_meta_fixture.py", {dir.path().string(), job}))
    GTEST_SKIP() << "needs .venv with torch and safetensors";
  const fs::path model = dir.path() / "0";
  fs::rename(model / "consolidated.01.pth", model / "consolidated.02.pth");
  EXPECT_NE(test::error_of([&] { open_model(model); }).find("consolidated.01.pth"), std::string::npos);
  fs::remove(model / "consolidated.02.pth");
  const std::string error = test::error_of([&] { open_model(model); });
  EXPECT_NE(error.find("not as expected"), std::string::npos) << error;
}

TEST(Gguf, MixedTypesReadAsGgufPyReadsThemAndExpertsAreNotTransposed) {
  TemporaryDirectory dir;
  if (!test::run_script("make_gguf_fixture.py", {(golden_data() / "ckpt/d_text").string(), dir.path().string()}))
    GTEST_SKIP() << "needs .venv with torch, gguf and safetensors";
  const auto model = open_model(dir.path() / "model.gguf");
  const auto expected = io::open_safetensors(dir.path() / "expected.safetensors");
  for (const auto& row : model->rows())
    EXPECT_TRUE(at::equal(model->load(row, at::kFloat), test::read_float(expected, row.name))) << row.name;
}

TEST(Gguf, RopeFactorsReachTheConfig) {
  TemporaryDirectory dir;
  if (!test::run_script("make_gguf_fixture.py", {(golden_data() / "ckpt/d_text").string(), dir.path().string()}))
    GTEST_SKIP() << "needs .venv with torch, gguf and safetensors";
  const auto model = open_model(dir.path());  // the one .gguf of a directory
  const at::Tensor want = test::read_float(io::open_safetensors(dir.path() / "expected.safetensors"), "rope_freqs");
  const auto& factors = model->config().text.rope_factors;
  ASSERT_EQ(static_cast<int64_t>(factors.size()), want.numel());
  for (size_t i = 0; i < factors.size(); ++i) EXPECT_EQ(factors[i], want[i].item<float>());
  EXPECT_GT(factors.back(), 15);
}

TEST(Gguf, QueriesAndKeysAreNotPermutedInQ8) {
  // Q8_0 of the golden checkpoint: every value within half a step of the original's, and 127 times the rounding of the
  // step to fp16 (2^-11); rows in the same order.
  for (const auto& set : puna::test::golden_sets()) {
    if (!fs::exists(set / "gguf/d_text-q8_0.gguf") || !fs::exists(set / "ckpt/d_text")) continue;
    const auto gguf = open_model(set / "gguf/d_text-q8_0.gguf"), hf = open_model(set / "ckpt/d_text");
    for (const auto& row : hf->rows()) {
      const at::Tensor want = hf->load(row, at::kFloat);
      const double step = want.abs().max().item<double>() / 127;
      EXPECT_LE((gguf->load(row, at::kFloat) - want).abs().max().item<double>(), step * (0.5 + 127.0 / 2048))
          << row.name;
    }
    EXPECT_EQ(gguf->format(), "GGUF Q8_0");
  }
}

TEST(Gguf, F32EqualsTheHuggingFaceCheckpoint) {
  int checked = 0;
  for (const auto& set : puna::test::golden_sets()) {
    if (!fs::exists(set / "gguf/d_text-f32.gguf")) continue;
    test::expect_same_rows(*open_model(set / "gguf/d_text-f32.gguf"), *open_model(set / "ckpt/d_text"));
    ++checked;
  }
  if (!checked) GTEST_SKIP() << "only in a full golden set (PUNA_GOLDEN_DIR)";
}

TEST(Quantised, ValuesEqualThePackersOwn) {
  TemporaryDirectory dir;
  const fs::path source = golden_data() / "ckpt/a_scout";
  const std::vector<std::string> schemes = {"pack4_channel", "pack4_group_asym", "pack8_group_asym",
                                            "int8_channel",  "int8_tensor_asym", "fp8_tensor",
                                            "fp8_block",     "fp8_fbgemm_linear"};
  std::vector<std::string> arguments = {source.string(), dir.path().string()};
  arguments.insert(arguments.end(), schemes.begin(), schemes.end());
  if (!test::run_script("make_quant_fixture.py", arguments))
    GTEST_SKIP() << "needs .venv with torch, compressed-tensors and safetensors";
  const auto original = open_model(source);
  for (const auto& scheme : schemes) {
    SCOPED_TRACE(scheme);
    const auto model = open_model(dir.path() / scheme);
    const auto expected = io::open_safetensors(dir.path() / scheme / "expected.safetensors");
    size_t quantised = 0;
    for (const auto& row : model->rows()) {
      const std::string name = arch::hf_name(model->config(), row);
      const bool is_quantised = expected.find(name) != nullptr;
      const at::Tensor want = is_quantised ? test::read_float(expected, name) : original->load(row, at::kFloat);
      EXPECT_TRUE(at::equal(model->load(row, at::kFloat), want)) << name;
      EXPECT_TRUE(at::equal(model->load(row, at::kBFloat16), want.to(at::kBFloat16))) << name;
      quantised += is_quantised;
      EXPECT_EQ(model->is_quantised(row), is_quantised) << name;
      EXPECT_EQ(model->integers(row).has_value(), is_quantised && scheme != "fp8_block") << name;
      if (model->integers(row)) {
        EXPECT_TRUE(at::equal(test::values_of_integers(*model, row), want)) << name;
      }
    }
    EXPECT_EQ(quantised, expected.tensors().size());
    EXPECT_EQ(quantised, 4u * 8);
  }
}

TEST(StoredBlocks, AllGgufTypesDecodeByRows) {
  TemporaryDirectory dir;
  for (DType type : {DType::Q4_0, DType::Q8_0, DType::Q4_K, DType::Q5_K, DType::Q6_K}) {
    const int64_t rows = 5, cols = 512;
    // Random bytes with finite scales: exponents of all binary16 fields are cut by clearing a high bit.
    auto bytes = std::make_shared<std::vector<std::byte>>(*dtype_bytes(type, rows * cols));
    for (size_t i = 0; i < bytes->size(); ++i) (*bytes)[i] = std::byte((i * 2654435761u >> 13) & 0x3F);
    const io::TensorView view{"x", type, {rows, cols}, *bytes, bytes};
    std::vector<float> whole(rows * cols), by_rows(rows * cols);
    const auto matrix = matrix_of(view, 0, rows, cols);
    matrix->read(0, rows, at::kFloat, whole.data());
    for (int64_t r = 0; r < rows; ++r) matrix_of(view, r, 1, cols)->read(0, 1, at::kFloat, by_rows.data() + r * cols);
    EXPECT_EQ(whole, by_rows);
    EXPECT_NE(whole[0], whole[cols]);
  }
}

}  // namespace
}  // namespace puna::checkpoint
