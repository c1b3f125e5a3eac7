// The same model comes out of every format: Meta's shards, GGUF, quantised checkpoints of real packers.
#include <gtest/gtest.h>

#include "checkpoint/stored_matrix.h"
#include "io/safetensors.h"
#include "tests/checkpoint/fixtures.h"
#include "tests/support/golden.h"

namespace puna::checkpoint {
namespace {
namespace fs = std::filesystem;
using puna::test::golden_data;
using puna::test::TemporaryDirectory;

struct MetaCase {
  const char* checkpoint;
  std::vector<std::string> options;
};

class Meta : public testing::TestWithParam<MetaCase> {};

TEST_P(Meta, RowsEqualTheHuggingFaceCheckpointTheyWereMadeFrom) {
  TemporaryDirectory dir;
  const fs::path source = golden_data() / "ckpt" / GetParam().checkpoint;
  std::vector<std::string> arguments = {source.string(), dir.path().string()};
  arguments.insert(arguments.end(), GetParam().options.begin(), GetParam().options.end());
  if (!test::run_script("make_meta_fixture.py", arguments)) GTEST_SKIP() << "needs .venv with torch and safetensors";
  const auto meta = open_model(dir.path()), hf = open_model(source);
  test::expect_same_rows(*meta, *hf);
  EXPECT_EQ(meta->config().text.head_dim, hf->config().text.head_dim);
  EXPECT_TRUE(meta->format().starts_with("Meta ")) << meta->format();
}

INSTANTIATE_TEST_SUITE_P(Layouts, Meta,
                         testing::Values(MetaCase{"a_scout", {}}, MetaCase{"a_scout", {"--shards", "2"}},
                                         MetaCase{"b_maverick", {"--shards", "2"}}, MetaCase{"b_maverick", {"--plain"}},
                                         MetaCase{"d_text", {"--shards", "2", "--plain"}}));

TEST(MetaFiles, AGapInTheShardsIsAnError) {
  TemporaryDirectory dir;
  const std::string source = (golden_data() / "ckpt/d_text").string();
  if (!test::run_script("make_meta_fixture.py", {source, dir.path().string(), "--shards", "2"}))
    GTEST_SKIP() << "needs .venv with torch and safetensors";
  fs::rename(dir.path() / "consolidated.01.pth", dir.path() / "consolidated.02.pth");
  EXPECT_NE(test::error_of([&] { open_model(dir.path()); }).find("consolidated.01.pth"), std::string::npos);
  fs::remove(dir.path() / "consolidated.02.pth");
  const std::string error = test::error_of([&] { open_model(dir.path()); });
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
  // Q8_0 of the golden checkpoint: every value within half a step of the original's, rows in the same order.
  for (const auto& set : puna::test::golden_sets()) {
    if (!fs::exists(set / "gguf/d_text-q8_0.gguf") || !fs::exists(set / "ckpt/d_text")) continue;
    const auto gguf = open_model(set / "gguf/d_text-q8_0.gguf"), hf = open_model(set / "ckpt/d_text");
    for (const auto& row : hf->rows()) {
      const at::Tensor want = hf->load(row, at::kFloat);
      const double step = want.abs().max().item<double>() / 127;
      EXPECT_LE((gguf->load(row, at::kFloat) - want).abs().max().item<double>(), step * 0.51) << row.name;
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

class Quantised : public testing::TestWithParam<const char*> {};

TEST_P(Quantised, ValuesEqualThePackersOwn) {
  TemporaryDirectory dir;
  const fs::path source = golden_data() / "ckpt/a_scout";
  if (!test::run_script("make_quant_fixture.py", {source.string(), dir.path().string(), GetParam()}))
    GTEST_SKIP() << "needs .venv with torch, compressed-tensors and safetensors";
  const auto model = open_model(dir.path()), original = open_model(source);
  const auto expected = io::open_safetensors(dir.path() / "expected.safetensors");
  int quantised = 0;
  for (const auto& row : model->rows()) {
    const std::string name = arch::hf_name(model->config(), row);
    const bool is_quantised = expected.find(name) != nullptr;
    const at::Tensor want = is_quantised ? test::read_float(expected, name) : original->load(row, at::kFloat);
    EXPECT_TRUE(at::equal(model->load(row, at::kFloat), want)) << name;
    EXPECT_TRUE(at::equal(model->load(row, at::kBFloat16), want.to(at::kBFloat16))) << name;
    quantised += is_quantised;
  }
  EXPECT_EQ(quantised, 4 * 8);
}

INSTANTIATE_TEST_SUITE_P(Schemes, Quantised,
                         testing::Values("pack4_channel", "pack4_group_asym", "pack8_group_asym", "int8_channel",
                                         "int8_tensor_asym", "fp8_tensor", "fp8_block", "fp8_fbgemm_linear"),
                         [](const auto& info) { return std::string(info.param); });

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
