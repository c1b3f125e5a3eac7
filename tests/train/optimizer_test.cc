// AdamW against a plain loop over doubles.
#include "train/optimizer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/train/support.h"

namespace puna::train {
namespace {

at::Tensor random(at::IntArrayRef shape, uint64_t seed, at::ScalarType dtype = at::kDouble) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::TensorOptions().dtype(dtype));
}

std::vector<double> values(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().to(at::kDouble).contiguous();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

// Loshchilov and Hutter, algorithm 2, one number at a time.
struct Naive {
  std::vector<double> w, m, v;
  int steps = 0;

  explicit Naive(const at::Tensor& weight) : w(values(weight)), m(w.size()), v(w.size()) {}

  void step(const at::Tensor& gradient, double rate, double scale, const OptimizerConfig& c, bool decayed) {
    ++steps;
    const std::vector<double> g = values(gradient);
    for (size_t i = 0; i < w.size(); ++i) {
      const double grad = g[i] * scale;
      if (decayed) w[i] -= rate * c.weight_decay * w[i];
      m[i] = c.beta1 * m[i] + (1 - c.beta1) * grad;
      v[i] = c.beta2 * v[i] + (1 - c.beta2) * grad * grad;
      const double mean = m[i] / (1 - std::pow(c.beta1, steps)), square = v[i] / (1 - std::pow(c.beta2, steps));
      w[i] -= rate * mean / (std::sqrt(square) + c.epsilon);
    }
  }
};

void expect_near(const at::Tensor& actual, const std::vector<double>& expected, double tolerance) {
  const std::vector<double> found = values(actual);
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], tolerance) << i;
}

class AdamWTest : public testing::TestWithParam<at::ScalarType> {};

TEST_P(AdamWTest, AParametersOwnRateMultipliesTheLearningRate) {
  const double tolerance = GetParam() == at::kDouble ? 1e-13 : 3e-6;
  OptimizerConfig config;
  AdamW adam;
  const at::Tensor slow = random({5, 7}, 1, GetParam()), plain = random({5, 7}, 2, GetParam());
  Naive naive_slow(slow), naive_plain(plain);
  adam.add("slow", slow, true);
  adam.add("plain", plain, true);
  adam.parameters().at("slow").rate = 0.25;
  for (int step = 0; step < 4; ++step) {
    const at::Tensor gradient = random({5, 7}, 10 + step, GetParam());
    naive_slow.step(gradient, 0.25 * 0.1, 1, config, true);
    naive_plain.step(gradient, 0.1, 1, config, true);
    adam.step({{"slow", gradient.clone()}, {"plain", gradient.clone()}}, 0.1, 1, config);
  }
  expect_near(slow, naive_slow.w, tolerance);
  expect_near(plain, naive_plain.w, tolerance);
}

TEST_P(AdamWTest, FollowsThePlainLoop) {
  const double tolerance = GetParam() == at::kDouble ? 1e-13 : 3e-6;
  OptimizerConfig config;
  config.weight_decay = 0.3;
  AdamW adam;
  const at::Tensor matrix = random({5, 7}, 1, GetParam()), norm = random({9}, 2, GetParam());
  Naive naive_matrix(matrix), naive_norm(norm);
  adam.add("matrix", matrix, true);
  adam.add("norm", norm, false);
  for (int step = 0; step < 8; ++step) {
    const at::Tensor a = random({5, 7}, 10 + step, GetParam()), b = random({9}, 30 + step, GetParam());
    const double rate = 0.1 / (step + 1), scale = step % 2 == 0 ? 1 : 0.25;
    naive_matrix.step(a, rate, scale, config, true);
    // A parameter without a gradient stays as it is, and its bias correction does not go on.
    std::map<std::string, at::Tensor> gradients = {{"matrix", a.clone()}};
    if (step % 3 == 0) {
      naive_norm.step(b, rate, scale, config, false);
      gradients["norm"] = b.clone();
    }
    adam.step(gradients, rate, scale, config);
    expect_near(matrix, naive_matrix.w, tolerance);
    expect_near(norm, naive_norm.w, tolerance);
  }
  expect_near(adam.parameters().at("matrix").m, naive_matrix.m, tolerance);
  expect_near(adam.parameters().at("norm").v, naive_norm.v, tolerance);
  EXPECT_EQ(adam.parameters().at("matrix").steps, 8);
  EXPECT_EQ(adam.parameters().at("norm").steps, 3);
}

INSTANTIATE_TEST_SUITE_P(Types, AdamWTest, testing::Values(at::kFloat, at::kDouble));

TEST(AdamW, DecayAloneShrinksAndNormsStay) {
  OptimizerConfig config;
  config.weight_decay = 0.5;
  AdamW adam;
  const at::Tensor matrix = at::full({3}, 2.0, at::kDouble), norm = matrix.clone();
  adam.add("matrix", matrix, true);
  adam.add("norm", norm, false);
  adam.step({{"matrix", at::zeros({3}, at::kDouble)}, {"norm", at::zeros({3}, at::kDouble)}}, 0.1, 1, config);
  EXPECT_DOUBLE_EQ(matrix[0].item<double>(), 2 * (1 - 0.1 * 0.5));
  EXPECT_DOUBLE_EQ(norm[0].item<double>(), 2);
}

TEST(AdamW, ResetForgetsMomentsAndSteps) {
  AdamW adam;
  const at::Tensor weight = random({4}, 1), start = weight.clone(), gradient = random({4}, 2);
  adam.add("w", weight, false);
  adam.step({{"w", gradient.clone()}}, 0.1, 1, {});
  const at::Tensor first = weight - start;
  adam.reset();
  const at::Tensor again = weight.clone();
  adam.step({{"w", gradient.clone()}}, 0.1, 1, {});
  EXPECT_LE((weight - again - first).abs().max().item<double>(), 1e-15);
}

TEST(AdamW, NormsAndBiasesAreNotDecayed) {
  int decayed = 0, kept = 0;
  for (const arch::ParamRow& row : arch::parameter_table(test::train_config(true))) {
    const bool vector = row.name.find("norm") != std::string::npos || row.name.ends_with("bias");
    EXPECT_EQ(is_decayed(row), !vector) << row.name;
    ++(vector ? kept : decayed);
  }
  EXPECT_GT(decayed, 20);
  EXPECT_GT(kept, 20);
}

TEST(AdamW, GlobalNormIsOfAllTensorsTogether) {
  EXPECT_DOUBLE_EQ(global_norm({{"a", at::full({4}, 2.0)}, {"b", at::full({1}, 3.0)}}), 5);
  EXPECT_DOUBLE_EQ(global_norm({}), 0);
  // More terms than a sum in FP32 can count.
  EXPECT_NEAR(global_norm({{"large", at::ones({int64_t{5} << 26}, at::kFloat)}}), std::sqrt(5.0) * 8192, 1);
  EXPECT_TRUE(std::isnan(global_norm({{"a", at::full({1}, NAN)}})));
}

}  // namespace
}  // namespace puna::train
