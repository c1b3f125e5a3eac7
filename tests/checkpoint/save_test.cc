// Saving: what is written opens as the same model, in one file or in shards; nothing is left half done.
#include "checkpoint/save.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/checkpoint/fixtures.h"
#include "tests/support/golden.h"

namespace puna::checkpoint {
namespace {
namespace fs = std::filesystem;
using puna::test::golden_data;
using puna::test::TemporaryDirectory;
using test::error_of;

void save_as(const ModelSource& model, const fs::path& dir, at::ScalarType dtype, int64_t shard = int64_t{5} << 30) {
  save_hf(
      dir, model.config(), dtype, [&](const auto& row) { return model.load(row, dtype); }, shard);
}

TEST(Save, DenseCheckpointsComeBackBitForBit) {
  for (const char* name : {"a_scout", "b_maverick", "c_top2", "d_text"}) {
    SCOPED_TRACE(name);
    TemporaryDirectory dir;
    const auto model = open_model(golden_data() / "ckpt" / name);
    save_as(*model, dir.path() / "out", at::kFloat);
    const auto saved = open_model(dir.path() / "out");
    test::expect_same_rows(*saved, *model);
    EXPECT_EQ(saved->format(), "safetensors F32");
    EXPECT_EQ(saved->config().text, model->config().text);
    EXPECT_EQ(saved->config().eos_token_ids, model->config().eos_token_ids);
  }
}

TEST(Save, ShardsHoldEveryRowOnceAndNoneIsTooLarge) {
  TemporaryDirectory dir;
  const auto model = open_model(golden_data() / "ckpt/a_scout");
  save_as(*model, dir.path() / "out", at::kBFloat16, 300'000);
  int shards = 0;
  for (const auto& entry : fs::directory_iterator(dir.path() / "out")) {
    if (entry.path().extension() != ".safetensors") continue;
    EXPECT_LT(entry.file_size(), 300'000u + 20'000);
    ++shards;
  }
  EXPECT_GT(shards, 5);
  const Json index = read_json_file(dir.path() / "out/model.safetensors.index.json");
  EXPECT_EQ(index["weight_map"].size(), model->rows().size());
  EXPECT_EQ(index["metadata"]["total_size"], model->stored_bytes());
  test::expect_same_rows(*open_model(dir.path() / "out"), *model);
}

TEST(Save, AQuantisedCheckpointBecomesDense) {
  TemporaryDirectory dir;
  const auto model = open_model(golden_data() / "quant/w4a16_a");
  save_as(*model, dir.path() / "out", at::kFloat);
  EXPECT_FALSE(read_json_file(dir.path() / "out/config.json").contains("quantization_config"));
  test::expect_same_rows(*open_model(dir.path() / "out"), *model);
}

TEST(Save, AFailureLeavesNoConfigAndNoHalfFile) {
  TemporaryDirectory dir;
  const auto model = open_model(golden_data() / "ckpt/d_text");
  int asked = 0;
  auto fails_midway = [&](const arch::ParamRow& row) {
    if (++asked == 10) throw std::runtime_error("stop");
    return model->load(row, at::kFloat);
  };
  EXPECT_THROW(save_hf(dir.path() / "out", model->config(), at::kFloat, fails_midway), std::runtime_error);
  EXPECT_TRUE(fs::is_empty(dir.path() / "out"));
}

TEST(Save, AnExistingModelIsNotOverwritten) {
  TemporaryDirectory dir;
  const auto model = open_model(golden_data() / "ckpt/d_text");
  save_as(*model, dir.path(), at::kFloat);
  EXPECT_NE(error_of([&] { save_as(*model, dir.path(), at::kFloat); }).find("already holds a model"),
            std::string::npos);
}

TEST(Save, ModelsLargerThanTheDiskAreRefusedBeforeAnythingIsWritten) {
  TemporaryDirectory dir;
  const auto config = *arch::preset("behemoth");
  const std::string error = error_of([&] {
    save_hf(dir.path(), config, at::kFloat, [](const auto&) -> at::Tensor { throw std::runtime_error("asked"); });
  });
  EXPECT_NE(error.find("on disk"), std::string::npos) << error;
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

TEST(Save, SideFilesAreCopied) {
  TemporaryDirectory dir;
  copy_side_files(golden_data() / "ckpt/a_scout", dir.path());
  for (const char* name : {"chat_template.jinja", "generation_config.json", "preprocessor_config.json"})
    EXPECT_TRUE(fs::exists(dir.path() / name)) << name;
  EXPECT_FALSE(fs::exists(dir.path() / "config.json"));
}

TEST(Save, TransformersOpensWhatPunaWroteWithTheSameLogits) {
  struct Case {
    const char *source, *golden, *key;
    at::ScalarType dtype;
  };
  const std::vector<Case> cases = {
      {"ckpt/a_scout", "goldens/a_scout/text.safetensors", "logits.100", at::kBFloat16},
      {"ckpt/b_maverick", "goldens/b_maverick/text.safetensors", "logits.100", at::kBFloat16},
      {"ckpt/c_top2", "goldens/c_top2/text.safetensors", "logits.100", at::kFloat},
      {"quant/w4a16_a", "quant/w4a16_a/golden.safetensors", "logits.40", at::kFloat},
      {"quant/fp8_ct_b", "quant/fp8_ct_b/golden.safetensors", "logits.40", at::kFloat},
      {"gguf/d_text-q8_0.gguf", "gguf/golden.safetensors", "logits_q8_0.100", at::kFloat},
  };
  TemporaryDirectory dir;
  std::vector<std::string> jobs;
  for (const auto& c : cases) {
    const fs::path out = dir.path() / std::to_string(jobs.size());
    const auto model = open_model(golden_data() / c.source);
    save_as(*model, out, c.dtype, 1 << 20);
    jobs.push_back(fmt::format("{},{},{}", out.string(), (golden_data() / c.golden).string(), c.key));
  }
  if (!test::run_script("../clients/check_saved_model.py", jobs)) GTEST_SKIP() << "needs .venv with transformers";
}

}  // namespace
}  // namespace puna::checkpoint
