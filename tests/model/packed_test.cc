// Models whose weights stay the integers that are stored, against the same models dequantised.
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "base/error.h"
#include "checkpoint/adapter.h"
#include "kernels/quantized/matmul.h"
#include "tests/model/support.h"
#include "tests/support/golden.h"

namespace puna::test {
namespace {

std::unique_ptr<model::Model> load_stored(const std::filesystem::path& path, at::ScalarType dtype = at::kFloat) {
  return model::Model::load(*checkpoint::open_model(path), {.dtype = dtype, .device = at::kCPU});
}

/// The golden models stored as INT4.
std::vector<std::filesystem::path> int4_models() {
  std::vector<std::filesystem::path> found;
  for (const auto& dir : golden_directories("quant"))
    if (checkpoint::open_model(dir)->format().find("INT4") != std::string::npos) found.push_back(dir);
  EXPECT_GE(found.size(), 2u);
  return found;
}

at::Tensor ids_of(const std::filesystem::path& dir) { return read_tensors(dir / "golden.safetensors").at("ids.40"); }

/// |actual - expected| / |expected| of each row.
at::Tensor relative_error(const at::Tensor& actual, const at::Tensor& expected) {
  const at::Tensor wide = expected.to(at::kDouble);
  return (actual.to(at::kDouble) - wide).norm(2, -1) / wide.norm(2, -1);
}

// Rounding rows to INT8 moves a product by about half a percent; a layer has four in a row. An expert that flips
// because the router is undecided moves a row by more: hence medians.
TEST(PackedModel, LogitsAreNearThoseOfDequantisedWeights) {
  for (const auto& dir : int4_models()) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      SCOPED_TRACE(fmt::format("{} {}", dir.string(), c10::toString(dtype)));
      const auto stored = load_stored(dir, dtype);
      const model::Batch batch = model::Batch::single(ids_of(dir));
      const at::Tensor logits = stored->forward(batch), expected = load_model(dir)->forward(batch);
      const at::Tensor error = relative_error(logits, expected);
      EXPECT_LT(error.median().item<double>(), 0.03);
      EXPECT_GT(error.median().item<double>(), 1e-6) << "nothing was rounded: are the weights packed?";
      const at::Tensor agree = logits.argmax(-1) == expected.argmax(-1);
      EXPECT_GE(agree.to(at::kDouble).mean().item<double>(), 0.9);
    }
  }
}

TEST(PackedModel, HoldsTheBytesThatItSays) {
  for (const auto& dir : int4_models()) {
    const auto source = checkpoint::open_model(dir);
    const model::LoadOptions options = {.dtype = at::kBFloat16, .device = at::kCPU};
    const model::WeightBytes bytes = model::weight_bytes(*source, options);
    const auto stored = model::Model::load(*source, options);
    int64_t packed = 0, dense = 0, num_packed = 0;
    for (const auto& [name, weight] : stored->weights()) {
      (weight.packed ? packed : dense) +=
          weight.packed ? weight.packed->num_bytes() : static_cast<int64_t>(weight.dense.nbytes());
      num_packed += weight.packed != nullptr;
      EXPECT_EQ(weight.packed != nullptr,
                source->integers(*std::ranges::find(source->rows(), name, &arch::ParamRow::name)).has_value());
    }
    EXPECT_GT(num_packed, 0);
    EXPECT_EQ(bytes.num_packed, num_packed);
    EXPECT_EQ(bytes.packed, packed);
    EXPECT_EQ(bytes.dense, dense);
    EXPECT_EQ(bytes.dequantised, 0);
    const model::WeightBytes all_dense =
        model::weight_bytes(*source, {.dtype = at::kBFloat16, .weights = model::WeightForm::kDense});
    EXPECT_EQ(all_dense.packed, 0);
    EXPECT_GT(all_dense.total(), bytes.total());
  }
}

TEST(PackedModel, OtherFormatsAreDequantisedAndCounted) {
  for (const auto& dir : golden_directories("quant")) {
    const auto source = checkpoint::open_model(dir);
    if (source->format().find("FP8") == std::string::npos) continue;
    const model::WeightBytes bytes = model::weight_bytes(*source, {});
    EXPECT_EQ(bytes.num_packed, 0);
    EXPECT_GT(bytes.num_dequantised, 0);
  }
}

TEST(PackedModel, PiecesThroughTheCacheEqualTheWhole) {
  for (const auto& dir : int4_models()) {
    SCOPED_TRACE(dir);
    const auto stored = load_stored(dir);
    const at::Tensor ids = ids_of(dir);
    const at::Tensor whole = stored->forward(model::Batch::single(ids));
    for (const auto& sizes : {std::vector<int64_t>(ids.size(0), 1), std::vector<int64_t>{7, 1, 20, 12}})
      EXPECT_LT(relative_error(in_pieces(*stored, ids, sizes), whole).median().item<double>(), 1e-3);
  }
}

TEST(PackedModel, AdaptersDoWhatTheyDoOnDenseWeights) {
  const auto lora = golden_directories("lora");
  ASSERT_FALSE(lora.empty());
  const auto dir = golden_data() / "quant/w4a16_a";
  const model::Batch batch = model::Batch::single(ids_of(dir));
  const auto dense = load_model(dir), stored = load_stored(dir);
  const auto adapter = checkpoint::open_adapter(lora.front(), stored->config());
  const at::Tensor dense_before = dense->forward(batch), before = stored->forward(batch);
  dense->add_adapter(adapter);
  stored->add_adapter(adapter);
  const at::Tensor expected = dense->forward(batch), logits = stored->forward(batch);
  EXPECT_GT(relative_error(expected, dense_before).median().item<double>(), 0.1) << "the adapter changes nothing";
  EXPECT_GT(relative_error(logits, before).median().item<double>(), 0.1);
  EXPECT_LT(relative_error(logits, expected).median().item<double>(), 0.03);
}

TEST(PackedModel, DoesNotTrain) {
  const auto stored = load_stored(golden_data() / "quant/w4a16_a");
  stored->weights().at("model.layers.0.input_layernorm.weight").dense.requires_grad_(true);
  EXPECT_THAT([&] { stored->forward(model::Batch::single(at::arange(5))); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("--weights dense")));
}

}  // namespace
}  // namespace puna::test
