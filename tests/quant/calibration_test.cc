// Statistics of a text's tokens, and what compensating errors by them brings.
#include "quant/calibration.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/interrupt.h"
#include "checkpoint/stored_matrix.h"
#include "quant/matrix.h"

namespace puna::quant {
namespace {

/// The upper Cholesky factor of the inverse, as Calibration gives it.
at::Tensor factor_of(const at::Tensor& products) {
  return at::linalg_cholesky(at::linalg_inv(products.to(at::kDouble)), true).to(at::kFloat).contiguous();
}

at::Tensor quantised(const at::Tensor& w, const Format& format, const at::Tensor& factor) {
  const int64_t rows = w.size(0), cols = w.size(1);
  MatrixQuantiser quantiser(rows, cols, format, DType::BF16, {}, factor);
  EXPECT_TRUE(quantiser.add(w.const_data_ptr<float>(), 3, 1));
  EXPECT_TRUE(quantiser.add(w.const_data_ptr<float>() + 3 * cols, rows - 3, 2));
  const auto result = std::make_shared<QuantisedMatrix>(quantiser.finish());
  checkpoint::Quantised stored;
  stored.coding = format.code == Code::kFp8    ? checkpoint::Coding::kFp8E4M3
                  : format.code == Code::kInt4 ? checkpoint::Coding::kPacked4
                                               : checkpoint::Coding::kPacked8;
  stored.values = result->values, stored.scales = result->scales, stored.zero_points = result->zero_points;
  stored.row_bytes = format.code == Code::kFp8 ? cols : words_per_row(format, cols) * 4;
  stored.scale_dtype = DType::BF16;
  stored.block_cols = format.group ? format.group : cols;
  at::Tensor out = at::empty_like(w);
  checkpoint::quantised_matrix(rows, cols, stored, result)->read(0, rows, at::kFloat, out.mutable_data_ptr());
  const double error = (out - w).to(at::kDouble).square().sum().item<double>();
  EXPECT_NEAR(result->squared_error, error, 1e-4 * error);
  return out;
}

TEST(Compensation, BringsTheOutputsOfCorrelatedInputsNearer) {
  at::manual_seed(1);
  const at::Tensor mix = at::randn({40, 256});
  const at::Tensor x = at::mm(at::randn({2000, 40}), mix) + 0.2 * at::randn({2000, 256});
  const at::Tensor w = at::randn({24, 256}) * 0.02;
  at::Tensor products = at::mm(x.t(), x) / 2000;
  products.diagonal().add_(0.01 * products.diagonal().mean().item<double>());
  const auto output_error = [&](const at::Tensor& q) { return at::mm(x, (q - w).t()).square().sum().item<double>(); };
  for (const char* name : {"int4-g32", "int4-g128", "int4-g32-asym", "int8", "fp8"}) {
    SCOPED_TRACE(name);
    const Format format = parse_format(name, "test");
    const double plain = output_error(quantised(w, format, {}));
    EXPECT_LT(output_error(quantised(w, format, factor_of(products))), 0.5 * plain);
  }
}

TEST(Compensation, UncorrelatedInputsChangeNothing) {
  const at::Tensor w = at::randn({20, 160}) * 0.02;
  const Format format = parse_format("int4-g32", "test");
  EXPECT_TRUE(at::equal(quantised(w, format, at::eye(160)), quantised(w, format, {})));
}

struct Shipped {
  engine::LoadOptions model;
  std::vector<arch::ParamRow> rows;
  std::string text;
  Shipped() {
    model.model = std::string(PUNA_SOURCE_DIR) + "/models/puna-demo";
    rows = rows_to_calibrate(checkpoint::open_model(model.model)->config(), preset_rules("int4", "test"));
    for (int i = 0; i < 60; ++i) text += "Gina is " + std::to_string(i) + " years old. How do I train a model? ";
  }
};

TEST(Calibration, SeveralPassesGiveWhatOneGives) {
  const Shipped shipped;
  CalibrationOptions one, several;
  several.gram_bytes = 2 << 20;
  Calibration a(shipped.model, shipped.text, shipped.rows, one), b(shipped.model, shipped.text, shipped.rows, several);
  for (const arch::ParamRow& row : shipped.rows) {
    for (int64_t e = row.shape.size() == 3 ? 0 : -1; e < (row.shape.size() == 3 ? row.shape[0] : 0); ++e) {
      const InputStatistics x = a.of(row.name, e);
      const InputStatistics& y = b.of(row.name, e);
      EXPECT_EQ(x.tokens, y.tokens);
      EXPECT_EQ(x.importance, y.importance) << row.name;
      ASSERT_EQ(x.importance.size(), static_cast<size_t>(row.shape[1])) << row.name;
      ASSERT_TRUE(x.factor.defined() && y.factor.defined()) << row.name << " " << e;
      EXPECT_TRUE(at::equal(x.factor, y.factor)) << row.name;
      // The factor's inverse product has the mean squares, damped, on its diagonal.
      const at::Tensor u = x.factor.to(at::kDouble);
      const at::Tensor squares = at::tensor(at::ArrayRef<float>(x.importance)).to(at::kDouble);
      const at::Tensor expected = squares + 0.01 * squares.mean();
      EXPECT_TRUE(at::allclose(at::linalg_inv(at::mm(u.t(), u)).diagonal(), expected, 1e-2)) << row.name;
    }
  }
  EXPECT_EQ(a.warnings(), b.warnings());
}

TEST(Calibration, ExpertsThatFewTokensReachAreNamedAndStillCalibrated) {
  const Shipped shipped;
  CalibrationOptions options;
  options.few_tokens = 1'000'000;
  Calibration calibration(shipped.model, "Hello.", shipped.rows, options);
  for (const arch::ParamRow& row : shipped.rows)
    for (int64_t e = 0; row.shape.size() == 3 && e < row.shape[0]; ++e)
      EXPECT_TRUE(calibration.of(row.name, e).factor.defined()) << row.name << " " << e;
  EXPECT_EQ(calibration.warnings().size(), 12u);  // 3 layers of 4 experts
  EXPECT_NE(calibration.warnings()[0].find("layer 1 expert 0"), std::string::npos);
}

TEST(Calibration, StopsWhenAskedAndWithoutMemoryForProductsGivesImportanceAlone) {
  const Shipped shipped;
  std::atomic<bool> stop = true;
  CalibrationOptions options;
  options.interrupt = &stop;
  Calibration stopped(shipped.model, shipped.text, shipped.rows, options);
  EXPECT_THROW(stopped.of(shipped.rows[0].name, -1), Interrupted);
  stop = false;
  options.gram_bytes = 1;
  Calibration narrow(shipped.model, shipped.text, shipped.rows, options);
  EXPECT_FALSE(narrow.of(shipped.rows[0].name, -1).factor.defined());
  EXPECT_EQ(narrow.of(shipped.rows[0].name, -1).importance.size(), 192u);
  EXPECT_THROW(Calibration(shipped.model, "", shipped.rows, options), Error);
}

}  // namespace
}  // namespace puna::quant
