// The ops against plain definitions, their gradients, and their edge cases.
#include <gtest/gtest.h>

#include <c10/core/GradMode.h>

#include <cmath>

#include "base/error.h"
#include "ops/attention.h"
#include "ops/linear.h"
#include "ops/loss.h"
#include "ops/moe.h"
#include "ops/norm.h"
#include "ops/rope.h"

namespace puna::ops {
namespace {

void expect_close(const at::Tensor& actual, const at::Tensor& expected, double atol) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  const at::Tensor difference = (actual.to(at::kDouble) - expected.to(at::kDouble)).abs();
  EXPECT_FALSE(difference.isnan().any().item<bool>());
  EXPECT_LE(difference.max().item<double>(), atol);
}

at::Tensor random(at::IntArrayRef shape) { return at::randn(shape); }

// Every query against every key it may see, one by one.
at::Tensor plain_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t T = q.size(0), H = q.size(1), K = q.size(2), S = k.size(0), G = k.size(1);
  at::Tensor out = at::zeros({T, H, K}, at::kDouble);
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t h = 0; h < H; ++h) {
      const int64_t g = h * G / H, visible = S - T + t + 1;
      const at::Tensor keys = k.narrow(0, 0, visible).select(1, g).to(at::kDouble);
      const at::Tensor values = v.narrow(0, 0, visible).select(1, g).to(at::kDouble);
      const at::Tensor scores = at::mv(keys, q[t][h].to(at::kDouble)) / std::sqrt(static_cast<double>(K));
      out[t][h] = at::mv(values.t(), scores.softmax(0));
    }
  }
  return out.view({T, H * K});
}

TEST(Attention, EqualsThePlainDefinition) {
  at::manual_seed(3);
  for (const auto& [T, S] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {1, 9}, {7, 7}, {3, 11}, {70, 130}}) {
    for (const auto& [H, G] : std::vector<std::pair<int64_t, int64_t>>{{4, 4}, {6, 2}, {5, 1}}) {
      SCOPED_TRACE(testing::Message() << T << " of " << S << ", " << H << "/" << G);
      const at::Tensor q = random({T, H, 12}), k = random({S, G, 12}), v = random({S, G, 12});
      expect_close(attention(q, k, v), plain_attention(q, k, v), 2e-6);
      c10::NoGradGuard guard;
      expect_close(attention(q, k, v), plain_attention(q, k, v), 2e-6);
    }
  }
}

TEST(Attention, GradientsEqualThePlainDefinition) {
  at::manual_seed(4);
  for (const auto& [T, S] : std::vector<std::pair<int64_t, int64_t>>{{1, 5}, {6, 6}, {3, 8}}) {
    const at::Tensor seed = random({T, 4 * 8});
    std::vector<at::Tensor> gradients[2];
    for (const bool plain : {false, true}) {
      at::manual_seed(5);
      at::Tensor q = random({T, 4, 8}).requires_grad_(), k = random({S, 2, 8}).requires_grad_();
      at::Tensor v = random({S, 2, 8}).requires_grad_();
      ((plain ? plain_attention(q, k, v) : attention(q, k, v)) * seed).sum().backward();
      gradients[plain] = {q.grad(), k.grad(), v.grad()};
    }
    for (int i = 0; i < 3; ++i) expect_close(gradients[0][i], gradients[1][i], 5e-6);
  }
}

TEST(Attention, LongSpansEqualThePlainDefinition) {
  at::manual_seed(6);
  for (const auto& [T, S] : std::vector<std::pair<int64_t, int64_t>>{{1200, 1200}, {900, 1600}}) {
    at::Tensor q = random({T, 4, 8}).requires_grad_(), k = random({S, 2, 8}).requires_grad_();
    at::Tensor v = random({S, 2, 8}).requires_grad_();
    const at::Tensor out = attention(q, k, v);
    for (const int64_t t : {int64_t{0}, T / 2, T - 1})
      expect_close(out.narrow(0, t, 1),
                   plain_attention(q.narrow(0, t, 1), k.narrow(0, 0, S - T + t + 1), v.narrow(0, 0, S - T + t + 1)),
                   3e-6);
    // Of the last query's output only, so that the plain definition stays cheap.
    const auto gradients = [&](const at::Tensor& last) {
      for (at::Tensor* x : {&q, &k, &v}) x->mutable_grad().reset();
      last.sum().backward();
      return std::vector<at::Tensor>{q.grad(), k.grad(), v.grad()};
    };
    const auto actual = gradients(out.narrow(0, T - 1, 1));
    const auto expected = gradients(plain_attention(q.narrow(0, T - 1, 1), k, v));
    for (int i = 0; i < 3; ++i) expect_close(actual[i], expected[i], 5e-6);
  }
}

TEST(Attention, BlocksOfQueriesEqualTheWhole) {
  at::manual_seed(6);
  c10::NoGradGuard guard;
  const int64_t S = 5000, T = 2000;  // 10M pairs: several blocks
  const at::Tensor q = random({T, 2, 8}), k = random({S, 1, 8}), v = random({S, 1, 8});
  const at::Tensor out = attention(q, k, v);
  for (const int64_t t : {0, 837, 838, 839, 1999})
    expect_close(out.narrow(0, t, 1),
                 plain_attention(q.narrow(0, t, 1), k.narrow(0, 0, S - T + t + 1), v.narrow(0, 0, S - T + t + 1)),
                 2e-6);
}

// Rotation is of pairs (2j, 2j+1), not of halves (j, j + K/2).
// Few keys are widened, many go through the fused kernel; both keep scores in fp32, so that only q, k, v and the result
// are rounded: the output differs from the fp32 one by its own rounding, 2^-8 of values below 1 in size.
TEST(Attention, SixteenBitScoresAreFp32WhateverTheLength) {
  for (const int64_t S : {100, 9000}) {
    for (const int64_t T : {1, 3}) {
      const at::Tensor q = (at::randn({T, 4, 32}) * 4).to(at::kBFloat16), k = at::randn({S, 2, 32}).to(at::kBFloat16),
                       v = at::rand({S, 2, 32}).to(at::kBFloat16);
      expect_close(attention(q, k, v).to(at::kFloat),
                   plain_attention(q.to(at::kFloat), k.to(at::kFloat), v.to(at::kFloat)), 1.0 / 256);
    }
  }
}

TEST(Rope, RotatesInterleavedPairs) {
  const at::Tensor x = at::tensor({1.f, 2.f, 3.f, 4.f}).view({1, 1, 4});
  const double f0 = 0.3, f1 = 0.01, p = 7;
  const at::Tensor out = rotate(x, rotations({7}, {f0, f1}, at::kCPU)).view({4});
  const double expected[] = {std::cos(p * f0) - 2 * std::sin(p * f0), std::sin(p * f0) + 2 * std::cos(p * f0),
                             3 * std::cos(p * f1) - 4 * std::sin(p * f1), 3 * std::sin(p * f1) + 4 * std::cos(p * f1)};
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(out[i].item<double>(), expected[i], 1e-6);
}

TEST(Rope, TenMillionIsAsExactAsOne) {
  const std::vector<double> frequencies = {1.0, 0.1234567, 1e-4};
  const at::Tensor table = at::view_as_real(rotations({10'485'759}, frequencies, at::kCPU)).view({3, 2});
  for (int j = 0; j < 3; ++j) {
    const long double angle = 10'485'759.0L * static_cast<long double>(frequencies[j]);
    EXPECT_NEAR(table[j][0].item<double>(), static_cast<double>(std::cos(angle)), 1e-6);
    EXPECT_NEAR(table[j][1].item<double>(), static_cast<double>(std::sin(angle)), 1e-6);
  }
}

TEST(Norm, StatisticsAreFp32AndTheWeightIsAppliedInTheModelsDtype) {
  at::manual_seed(7);
  const at::Tensor x = (random({5, 300}) * 30).to(at::kBFloat16), w = random({300}).to(at::kBFloat16);
  const at::Tensor wide = x.to(at::kDouble);
  const at::Tensor unit = (wide * (wide.square().mean(-1, true) + 1e-5).rsqrt()).to(at::kBFloat16);
  EXPECT_TRUE(at::equal(rms_norm(x, w, 1e-5), unit * w));
  EXPECT_TRUE(at::equal(unit_rms(x, 1e-5), unit));
}

Weight dense_weight(const at::Tensor& values) { return {"test.weight", values, {}}; }

TEST(Linear, AddsBiasAndEveryAdapter) {
  at::manual_seed(8);
  Weight w = dense_weight(random({6, 4}));
  const at::Tensor x = random({3, 4}), bias = random({6});
  at::Tensor expected = at::mm(x, w.dense.t());
  expect_close(linear(x, w), expected, 1e-6);
  expect_close(linear(x, w, bias), expected + bias, 1e-6);
  for (const double scale : {2.0, -0.5}) {
    w.adapters.push_back({random({2, 4}), random({6, 2}), scale});
    expected = expected + scale * at::mm(at::mm(x, w.adapters.back().a.t()), w.adapters.back().b.t());
  }
  expect_close(linear(x, w), expected, 1e-5);
  c10::NoGradGuard guard;
  expect_close(linear(x, w), expected, 1e-5);
}

TEST(Linear, RefusesAnotherWidth) {
  EXPECT_THROW(linear(at::zeros({2, 3}), dense_weight(at::zeros({6, 4}))), InternalError);
  EXPECT_THROW(grouped_linear(at::zeros({2, 3}), dense_weight(at::zeros({1, 4, 6})), {0, 2}), InternalError);
}

TEST(GroupedLinear, ExpertsWithoutRowsAreNeverRead) {
  at::manual_seed(9);
  Weight w = dense_weight(random({4, 3, 5}));
  w.adapters.push_back({random({4, 2, 3}), random({4, 5, 2}), 0.7});
  for (const at::Tensor& t : {w.dense, w.adapters[0].a, w.adapters[0].b}) {
    t[0].fill_(std::nan(""));
    t[2].fill_(std::nan(""));
  }
  const at::Tensor x = random({5, 3});
  const auto expert = [&](int64_t e, const at::Tensor& rows) {
    const LowRank& low = w.adapters[0];
    return at::mm(rows, w.dense[e]) + low.scale * at::mm(at::mm(rows, low.a[e].t()), low.b[e].t());
  };
  const at::Tensor expected = at::cat({expert(1, x.narrow(0, 0, 2)), expert(3, x.narrow(0, 2, 3))});
  expect_close(grouped_linear(x, w, {0, 0, 2, 2, 5}), expected, 1e-6);
  c10::NoGradGuard guard;
  expect_close(grouped_linear(x, w, {0, 0, 2, 2, 5}), expected, 1e-6);
}

TEST(GroupedLinear, GradientsReachOnlyTheExpertsUsed) {
  at::manual_seed(10);
  Weight w = dense_weight(random({3, 2, 2}).requires_grad_());
  const at::Tensor x = random({2, 2});
  grouped_linear(x, w, {0, 2, 2, 2}).sum().backward();
  EXPECT_GT(w.dense.grad()[0].abs().sum().item<double>(), 0);
  EXPECT_EQ(w.dense.grad().narrow(0, 1, 2).abs().sum().item<double>(), 0);
}

TEST(Route, TiesGoToTheLowestExpert) {
  const at::Tensor logits = at::tensor({1.f, 5.f, 5.f, 5.f, 2.f, 2.f, 2.f, 2.f}).view({2, 4});
  for (const int64_t A : {1, 2, 3}) {
    const Routing routing = route(logits, A, RouterScore::kSigmoid);
    for (int64_t a = 0; a < A; ++a) {
      EXPECT_EQ(routing.selected[0][a].item<int64_t>(), 1 + a);
      EXPECT_EQ(routing.selected[1][a].item<int64_t>(), a);
    }
  }
}

// Selecting after a saturated sigmoid would see ties where the logits have none.
TEST(Route, SelectsOnRawLogits) {
  const at::Tensor logits = at::tensor({40.f, 60.f, 50.f}).view({1, 3});
  EXPECT_EQ(route(logits, 1, RouterScore::kSigmoid).selected.item<int64_t>(), 1);
  EXPECT_EQ(route(logits, 2, RouterScore::kSigmoid).selected[0][1].item<int64_t>(), 2);
}

TEST(Route, ScoresAreSigmoidOrShareOfTheSoftmaxWithoutRenormalising) {
  const at::Tensor logits = at::tensor({0.5f, -1.f, 2.f}).view({1, 3});
  const at::Tensor sigmoid = route(logits, 2, RouterScore::kSigmoid).scores;
  EXPECT_NEAR(sigmoid[0][0].item<double>(), 1 / (1 + std::exp(-2.0)), 1e-6);
  EXPECT_NEAR(sigmoid[0][1].item<double>(), 1 / (1 + std::exp(-0.5)), 1e-6);
  const at::Tensor softmax = route(logits, 2, RouterScore::kSoftmax).scores;
  const double sum = std::exp(0.5) + std::exp(-1.0) + std::exp(2.0);
  EXPECT_NEAR(softmax[0][0].item<double>(), std::exp(2.0) / sum, 1e-6);
  EXPECT_NEAR(softmax[0][1].item<double>(), std::exp(0.5) / sum, 1e-6);
}

TEST(Route, RowsAreGroupedByExpertAndCombineIsTheInverse) {
  at::manual_seed(11);
  for (const int64_t A : {1, 3}) {
    const int64_t T = 17, E = 5;
    const at::Tensor x = random({T, 4});
    const Routing routing = route(random({T, E}), A, RouterScore::kSigmoid);
    EXPECT_EQ(routing.offsets.front(), 0);
    EXPECT_EQ(routing.offsets.back(), T * A);
    at::Tensor rows = gather_rows(x, routing) * gather_scores(routing);
    for (int64_t e = 0; e < E; ++e)
      rows.narrow(0, routing.offsets[e], routing.offsets[e + 1] - routing.offsets[e]).mul_(static_cast<double>(e + 1));
    const at::Tensor weight = ((routing.selected + 1) * routing.scores).sum(1, true);
    expect_close(combine_rows(rows, routing), x * weight, 1e-5);
  }
}

TEST(Loss, IsTheMeanOverTargetsThatAreNotIgnored) {
  at::manual_seed(12);
  const at::Tensor logits = random({4, 7}), labels = at::tensor({3, -100, 5, 6}, at::kLong);
  const at::Tensor targets = shifted_targets(labels);
  EXPECT_TRUE(at::equal(targets, at::tensor({-100, 5, 6, -100}, at::kLong)));
  const at::Tensor log_probs = logits.log_softmax(1);
  const double expected = -(log_probs[1][5] + log_probs[2][6]).item<double>() / 2;
  EXPECT_NEAR(cross_entropy(logits, targets).item<double>(), expected, 1e-6);
  EXPECT_THROW(cross_entropy(logits, at::full({4}, kIgnoredTarget, at::kLong)), Error);
}

}  // namespace
}  // namespace puna::ops
