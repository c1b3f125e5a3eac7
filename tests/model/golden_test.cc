// The model against golden files of every set: traces, logits, greedy continuations, images, adapters, formats.
#include <fmt/format.h>

#include "checkpoint/adapter.h"
#include "tests/model/support.h"
#include "tests/support/golden.h"

namespace puna::test {
namespace fs = std::filesystem;
namespace {

constexpr double kLogits = 2e-4;
constexpr double kTraces = 2e-4;

fs::path checkpoint_of(const fs::path& goldens) {
  return goldens.parent_path().parent_path() / "ckpt" / goldens.filename();
}

void expect_logits(const at::Tensor& logits, const Tensors& golden, const std::string& key) {
  if (golden.contains("logits." + key)) {
    EXPECT_TRUE(tensors_close(logits, golden.at("logits." + key), kLogits));
    return;
  }
  const at::Tensor columns = golden.at("sample_cols");
  EXPECT_TRUE(tensors_close(logits.index_select(1, columns), golden.at("logits_sampled." + key), kLogits));
  EXPECT_TRUE(tensors_close(at::logsumexp(logits, 1), golden.at("logsumexp." + key), kLogits));
  EXPECT_TRUE(
      tensors_close(logits.gather(1, golden.at("top20_ids." + key)), golden.at("top20_logits." + key), kLogits));
}

at::Tensor as_ids(const Json& json) { return at::tensor(json.get<std::vector<int64_t>>(), at::kLong); }

TEST(Golden, TextLogits) {
  for (const fs::path& dir : golden_directories("goldens")) {
    SCOPED_TRACE(dir);
    const auto model = load_model(checkpoint_of(dir));
    const Tensors golden = read_tensors(dir / "text.safetensors");
    int checked = 0;
    for (const auto& [name, ids] : golden) {
      if (!name.starts_with("ids.")) continue;
      SCOPED_TRACE(name);
      expect_logits(model->forward(model::Batch::single(ids)), golden, name.substr(4));
      ++checked;
    }
    EXPECT_GT(checked, 0);
  }
}

TEST(Golden, TextTrace) {
  int compared = 0;
  for (const fs::path& dir : golden_directories("goldens")) {
    if (!fs::exists(dir / "trace.safetensors")) continue;
    SCOPED_TRACE(dir);
    const auto model = load_model(checkpoint_of(dir));
    const Tensors golden = read_tensors(dir / "trace.safetensors");
    model::Trace trace;
    model->forward(model::Batch::single(golden.at("ids")), &trace);
    for (const auto& [name, expected] : golden) {
      if (name == "ids") continue;
      SCOPED_TRACE(name);
      ASSERT_TRUE(trace.contains(name));
      EXPECT_TRUE(tensors_close(trace.at(name), expected, name.ends_with("selected") ? 0 : kTraces));
      ++compared;
    }
    EXPECT_EQ(trace.size(), golden.size() - 1) << "the trace has other names than the golden file";
  }
  EXPECT_GT(compared, 100);
}

TEST(Golden, GreedyContinuations) {
  for (const fs::path& dir : golden_directories("goldens")) {
    const auto model = load_model(checkpoint_of(dir));
    const Json golden = read_json_file(dir / "text.json");
    for (const auto& [length, row] : golden.at("greedy").items()) {
      SCOPED_TRACE(dir / length);
      const auto tokens = row.at("tokens").get<std::vector<int64_t>>();
      EXPECT_EQ(greedy(*model, as_ids(row.at("prompt")), static_cast<int64_t>(tokens.size())), tokens);
    }
  }
}

TEST(Golden, VisionTrace) {
  int compared = 0;
  for (const fs::path& dir : golden_directories("goldens")) {
    if (!fs::exists(dir / "vision.safetensors")) continue;
    SCOPED_TRACE(dir);
    const auto model = load_model(checkpoint_of(dir));
    const Tensors golden = read_tensors(dir / "vision.safetensors");
    model::Trace trace;
    const at::Tensor features = model->encode_images(golden.at("pixel_values"), &trace);
    EXPECT_TRUE(tensors_close(features, golden.at("projected").flatten(0, 1), kTraces));
    EXPECT_TRUE(tensors_close(model->encode_images(golden.at("pixel_values")), features, 1e-5))
        << "tiles encoded a few at a time differ";
    for (const auto& [name, expected] : golden) {
      if (name == "pixel_values") continue;
      SCOPED_TRACE(name);
      ASSERT_TRUE(trace.contains(name));
      EXPECT_TRUE(tensors_close(trace.at(name), expected, name.starts_with("rope") ? 1e-6 : kTraces));
      ++compared;
    }
  }
  EXPECT_GT(compared, 10);
}

TEST(Golden, ImagePrompts) {
  int compared = 0;
  for (const fs::path& dir : golden_directories("goldens")) {
    if (!fs::exists(dir / "mm.json")) continue;
    const auto model = load_model(checkpoint_of(dir));
    const Json rows = read_json_file(dir / "mm.json");
    for (const auto& [name, row] : rows.items()) {
      if (!fs::exists(dir / (name + ".safetensors"))) continue;
      SCOPED_TRACE(dir / name);
      const Tensors golden = read_tensors(dir / (name + ".safetensors"));
      model::Batch batch = model::Batch::single(golden.at("ids"));
      batch.image_features = model->encode_images(golden.at("pixel_values"));
      model::Trace trace;
      expect_logits(model->forward(batch, &trace), golden, "all");
      if (golden.contains("embeds")) {
        EXPECT_TRUE(tensors_close(trace.at("embeds"), golden.at("embeds"), kTraces));
      }
      const auto tokens = row.at("greedy").get<std::vector<int64_t>>();
      EXPECT_EQ(greedy(*model, golden.at("ids"), static_cast<int64_t>(tokens.size()), batch.image_features), tokens);
      ++compared;
    }
  }
  EXPECT_GT(compared, 3);
}

TEST(Golden, Adapters) {
  for (const fs::path& dir : golden_directories("lora")) {
    SCOPED_TRACE(dir);
    const Json info = read_json_file(dir / "golden.json");
    const auto model = load_model(dir.parent_path().parent_path() / info.at("base").get<std::string>());
    const Tensors golden = read_tensors(dir / "golden.safetensors");
    const at::Tensor plain = model->forward(model::Batch::single(golden.at("ids")));
    model->add_adapter(checkpoint::open_adapter(dir, model->config()));
    const at::Tensor adapted = model->forward(model::Batch::single(golden.at("ids")));
    EXPECT_TRUE(tensors_close(adapted, golden.at("logits"), kLogits));
    EXPECT_GT((adapted - plain).abs().max().item<double>(), 0.1) << "the adapter changes nothing";
    const auto tokens = info.at("greedy").get<std::vector<int64_t>>();
    EXPECT_EQ(greedy(*model, golden.at("ids"), static_cast<int64_t>(tokens.size())), tokens);
  }
}

TEST(Golden, QuantisedCheckpoints) {
  for (const fs::path& dir : golden_directories("quant")) {
    SCOPED_TRACE(dir);
    const auto model = load_model(dir);
    const Tensors golden = read_tensors(dir / "golden.safetensors");
    for (const auto& [name, ids] : golden) {
      if (!name.starts_with("ids.")) continue;
      SCOPED_TRACE(name);
      EXPECT_TRUE(
          tensors_close(model->forward(model::Batch::single(ids)), golden.at("logits." + name.substr(4)), kLogits));
    }
  }
}

TEST(Golden, Gguf) {
  int compared = 0;
  for (const fs::path& set : golden_sets()) {
    std::error_code ec;
    for (const auto& entry : fs::directory_iterator(set / "gguf", ec)) {
      if (entry.path().extension() != ".gguf") continue;
      SCOPED_TRACE(entry.path());
      const auto model = load_model(entry.path());
      const Tensors golden = read_tensors(set / "gguf/golden.safetensors");
      const std::string stem = entry.path().stem(), format = stem.substr(stem.rfind('-') + 1);
      for (const char* length : {"5", "40", "100"}) {
        SCOPED_TRACE(length);
        const at::Tensor logits = model->forward(model::Batch::single(golden.at(fmt::format("ids.{}", length))));
        EXPECT_TRUE(tensors_close(logits, golden.at(fmt::format("logits_{}.{}", format, length)), kLogits));
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 0);
}

// BF16 arithmetic flips expert choices where the router is nearly undecided: it is held to what transformers itself
// does in BF16 with the same weights, by medians and by how often the best token is the same (SPEC 10).
TEST(Golden, Bf16IsAsCloseAsTransformers) {
  for (const fs::path& dir : golden_directories("goldens")) {
    const auto model = load_model(checkpoint_of(dir), at::kBFloat16);
    const Tensors golden = read_tensors(dir / "text.safetensors");
    const Json yardstick = read_json_file(dir / "text.json").at("hf_bf16_compute_vs_fp32");
    for (const auto& [length, row] : yardstick.items()) {
      SCOPED_TRACE(dir / length);
      if (!golden.contains("logits." + length)) continue;
      const at::Tensor logits = model->forward(model::Batch::single(golden.at("ids." + length))).to(at::kFloat);
      const at::Tensor expected = golden.at("logits." + length);
      const double median = (logits - expected).abs().amax(1).median().item<double>();
      const double agreement = (logits.argmax(1) == expected.argmax(1)).to(at::kFloat).mean().item<double>();
      const auto num_rows = static_cast<double>(expected.size(0));
      EXPECT_LE(median, 1.5 * row.at("median_row_max_abs").get<double>() + 0.1);
      EXPECT_GE(agreement, row.at("argmax_agreement").get<double>() - 0.05 - 1.5 / num_rows);
    }
  }
}

}  // namespace
}  // namespace puna::test
