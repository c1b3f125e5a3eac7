// Models whose weights stay as they are stored, against the same models dequantised.
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "base/error.h"
#include "checkpoint/adapter.h"
#include "kernels/quantized/matmul.h"
#include "model/load_weights.h"
#include "ops/linear.h"
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

double share_of_equal_choices(const at::Tensor& logits, const at::Tensor& expected) {
  return (logits.argmax(-1) == expected.argmax(-1)).to(at::kDouble).mean().item<double>();
}

// The golden models are random and amplify what is rounded: BF16 arithmetic on dense weights is the yardstick. Rounding
// a group of 32 normal values to INT8 moves them by 0.47 %, to BF16 by 0.11 %: four times as much.
TEST(PackedModel, LogitsAreNearThoseOfDequantisedWeightsByTheRatioOfRoundings) {
  for (const auto& dir : int4_models()) {
    SCOPED_TRACE(dir);
    const model::Batch batch = model::Batch::single(ids_of(dir));
    const at::Tensor expected = load_model(dir)->forward(batch), bf16 = load_model(dir, at::kBFloat16)->forward(batch);
    const double yardstick = relative_error(bf16, expected).median().item<double>();
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      SCOPED_TRACE(c10::toString(dtype));
      const at::Tensor logits = load_stored(dir, dtype)->forward(batch);
      EXPECT_LT(relative_error(logits, expected).median().item<double>(), 4 * yardstick);
      EXPECT_GT(share_of_equal_choices(logits, expected), share_of_equal_choices(bf16, expected) - 0.3);
    }
  }
}

// Of normal values in groups of 32 the rounding to INT8 is about half a percent.
TEST(PackedModel, TheFirstProductsMoveByTheRoundingOfTheirRowsAlone) {
  for (const auto& dir : int4_models()) {
    SCOPED_TRACE(dir);
    const model::Batch batch = model::Batch::single(ids_of(dir));
    model::Trace stored, dense;
    load_stored(dir)->forward(batch, &stored);
    load_model(dir)->forward(batch, &dense);
    for (const char* name : {"layers.0.q", "layers.0.k", "layers.0.v"}) {
      const at::Tensor error = relative_error(stored.at(name).flatten(1), dense.at(name).flatten(1));
      EXPECT_LT(error.max().item<double>(), 0.01) << name;
      EXPECT_GT(error.min().item<double>(), 1e-5) << name << " is not rounded: is it packed?";
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
      const arch::ParamRow& row = *std::ranges::find(source->rows(), name, &arch::ParamRow::name);
      EXPECT_EQ(weight.packed != nullptr, source->integers(row).has_value() || model::held_in_tiles(row, options));
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

// FP8 stays so for BF16 arithmetic, beside what else is multiplied; in FP32 all is dequantised.
TEST(PackedModel, Fp8IsHeldForArithmeticInBf16Alone) {
  int found = 0;
  for (const auto& dir : golden_directories("quant")) {
    const auto source = checkpoint::open_model(dir);
    const std::string format = source->format();
    if (format.find("FP8") == std::string::npos || format.find("fbgemm") != std::string::npos) continue;
    ++found;
    const model::WeightBytes wide = model::weight_bytes(*source, {.dtype = at::kFloat}),
                             narrow = model::weight_bytes(*source, {.dtype = at::kBFloat16});
    EXPECT_EQ(wide.num_packed, 0);
    EXPECT_GT(wide.num_dequantised, 0);
    EXPECT_EQ(narrow.num_dequantised, 0);
    EXPECT_GE(narrow.num_packed, wide.num_dequantised);
    EXPECT_LT(narrow.total(), wide.total() / 2);
  }
  EXPECT_GT(found, 0);
}

/// The golden models that kernels of floats multiply.
std::vector<std::filesystem::path> float_models() {
  std::vector<std::filesystem::path> found = {golden_data() / "ckpt/a_scout", golden_data() / "ckpt/b_maverick"};
  for (const auto& dir : golden_directories("quant"))
    if (checkpoint::open_model(dir)->format().find("FP8") != std::string::npos) found.push_back(dir);
  EXPECT_GE(found.size(), 3u);
  return found;
}

// The golden models amplify what is rounded: what LibTorch's products in BF16 move the logits by is the yardstick. The
// kernels round less often: products of gate and up are not rounded before SiLU, FP8 weights not by their scale.
TEST(PackedModel, FloatsAreAsNearToFp32AsLibTorchIs) {
  for (const auto& dir : float_models()) {
    SCOPED_TRACE(dir);
    const model::Batch batch = model::Batch::single(random_ids(40, 90, 3));
    const at::Tensor expected = load_model(dir)->forward(batch), bf16 = load_model(dir, at::kBFloat16)->forward(batch);
    const auto stored = load_stored(dir, at::kBFloat16);
    EXPECT_TRUE(stored->weights().at("model.layers.0.self_attn.q_proj.weight").packed);
    const at::Tensor logits = stored->forward(batch);
    const double yardstick = relative_error(bf16, expected).median().item<double>();
    const double error = relative_error(logits, expected).median().item<double>();
    EXPECT_LT(error, 1.25 * yardstick);
    EXPECT_GT(error, yardstick / 100);
    EXPECT_GT(share_of_equal_choices(logits, expected), share_of_equal_choices(bf16, expected) - 0.1);
  }
}

// A row's sums do not depend on the rows beside it.
TEST(PackedModel, FloatsGiveOneTokenTheLogitsThatItHasInAPrompt) {
  const auto stored = load_stored(golden_data() / "ckpt/a_scout", at::kBFloat16);
  const ops::Weight& head = stored->weights().at("lm_head.weight");
  const at::Tensor x = at::randn({40, head.inputs()}).to(at::kBFloat16), all = ops::linear(x, head);
  for (const int64_t row : {0, 13, 39}) EXPECT_TRUE(ops::linear(x.narrow(0, row, 1), head)[0].equal(all[row]));
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
  const double change = relative_error(expected, dense_before).median().item<double>();
  EXPECT_GT(change, 0.3) << "the adapter changes nothing";
  EXPECT_NEAR(relative_error(logits, before).median().item<double>(), change, change / 3);
  EXPECT_LT(relative_error(logits, expected).median().item<double>(), change / 2);
}

TEST(PackedModel, DoesNotTrain) {
  const auto stored = load_stored(golden_data() / "quant/w4a16_a");
  stored->weights().at("model.layers.0.input_layernorm.weight").dense.requires_grad_(true);
  EXPECT_THAT([&] { stored->forward(model::Batch::single(at::arange(5))); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("--weights dense")));
}

}  // namespace
}  // namespace puna::test
