// Hugging Face checkpoints open as the model: dense, sharded, INT4, FP8.
#include <gtest/gtest.h>

#include "base/json.h"
#include "checkpoint/model_source.h"
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
  for (const auto& set : test::golden_sets()) {
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

}  // namespace
}  // namespace puna::checkpoint
