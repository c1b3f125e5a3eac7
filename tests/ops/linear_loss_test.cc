// The fused head and loss against logits, log_softmax and autograd.
#include <gtest/gtest.h>

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <vector>

#include "base/error.h"
#include "ops/linear_loss.h"
#include "ops/loss.h"

namespace puna::ops {
namespace {

struct Case {
  at::Tensor x, targets, seeds;  // [T, D], [T], [3, T]
  Weight head;
};

Case make_case(int64_t T, int64_t D, int64_t V, at::ScalarType dtype, bool adapter) {
  at::manual_seed(21);
  Case c;
  c.x = at::randn({T, D}, at::kDouble).to(dtype).requires_grad_();
  c.head = {"head", at::randn({V, D}, at::kDouble).to(dtype).requires_grad_(), {}};
  if (adapter)
    c.head.adapters.push_back({at::randn({2, D}, at::kDouble).to(dtype).requires_grad_(),
                               at::randn({V, 2}, at::kDouble).to(dtype).requires_grad_(), 0.5});
  c.targets = at::randint(0, V, {T}, at::kLong);
  c.targets.narrow(0, T / 3, 1).fill_(kIgnoredTarget);
  c.seeds = at::randn({3, T}, at::kDouble);
  return c;
}

TargetStatistics naive(const Case& c) {
  at::Tensor w = c.head.dense;
  for (const LowRank& low : c.head.adapters) w = w + at::mm(low.b, low.a) * low.scale;
  at::Tensor logits = at::mm(c.x, w.t());
  if (logits.scalar_type() != at::kDouble) logits = logits.to(at::kFloat);
  const at::Tensor all = logits.log_softmax(1), used = (c.targets != kIgnoredTarget).to(all.scalar_type());
  const at::Tensor target = all.gather(1, c.targets.clamp_min(0).unsqueeze(1)).squeeze(1);
  return {target * used, -(all.exp() * all).sum(1) * used, logits.logsumexp(1) * used};
}

std::vector<at::Tensor> gradients(const Case& c, const TargetStatistics& s) {
  std::vector<at::Tensor> leaves = {c.x, c.head.dense};
  for (const LowRank& low : c.head.adapters) leaves.insert(leaves.end(), {low.a, low.b});
  at::Tensor loss = (s.log_probs * c.seeds[0]).sum() + (s.logsumexps * c.seeds[2]).sum();
  if (s.entropies.defined()) loss = loss + (s.entropies * c.seeds[1]).sum();
  return torch::autograd::grad({loss}, leaves);
}

void expect_relative(const at::Tensor& actual, const at::Tensor& expected, double bound) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  const double size = expected.to(at::kDouble).norm().item<double>();
  EXPECT_LE((actual.to(at::kDouble) - expected.to(at::kDouble)).norm().item<double>(), bound * size);
}

// Whole, by columns, and by single columns, so that running sums, rescaling and edges are all used.
TEST(LinearLoss, EqualsTheNaiveLossAndGradientsInFp64) {
  for (const bool adapter : {false, true}) {
    for (const int64_t buffer : {int64_t{1} << 20, int64_t{7 * 13 * 8}, int64_t{1}}) {
      SCOPED_TRACE(testing::Message() << "buffer " << buffer << ", adapter " << adapter);
      const Case c = make_case(13, 6, 37, at::kDouble, adapter);
      const TargetStatistics expected = naive(c), actual = linear_log_probs(c.x, c.head, c.targets, true, buffer);
      expect_relative(actual.log_probs, expected.log_probs, 1e-12);
      expect_relative(actual.entropies, expected.entropies, 1e-12);
      expect_relative(actual.logsumexps, expected.logsumexps, 1e-12);
      const auto g = gradients(c, actual), e = gradients(c, expected);
      for (size_t i = 0; i < g.size(); ++i) expect_relative(g[i], e[i], 1e-12);
    }
  }
}

TEST(LinearLoss, EqualsTheNaiveLossInNarrowerTypes) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const double bound = dtype == at::kFloat ? 2e-6 : 2e-2;
    for (const int64_t buffer : {int64_t{1} << 22, int64_t{9000}}) {
      const Case c = make_case(40, 24, 300, dtype, false);
      // Of FP32 the same values in FP64: LibTorch's first exp() of a process, on two threads, is now and then off by
      // 1e-4.
      Case plain = c;
      if (dtype == at::kFloat) {
        plain.x = c.x.detach().to(at::kDouble).requires_grad_();
        plain.head.dense = c.head.dense.detach().to(at::kDouble).requires_grad_();
      }
      const TargetStatistics expected = naive(plain), actual = linear_log_probs(c.x, c.head, c.targets, true, buffer);
      EXPECT_EQ(actual.log_probs.scalar_type(), at::kFloat);
      expect_relative(actual.log_probs, expected.log_probs, bound);
      expect_relative(actual.entropies, expected.entropies, bound);
      const auto g = gradients(c, actual), e = gradients(plain, expected);
      for (size_t i = 0; i < g.size(); ++i) {
        EXPECT_EQ(g[i].scalar_type(), dtype);
        expect_relative(g[i], e[i], bound);
      }
    }
  }
}

TEST(LinearLoss, AllIgnoredIsZeroAndNotNan) {
  Case c = make_case(5, 4, 9, at::kFloat, false);
  c.targets.fill_(kIgnoredTarget);
  const TargetStatistics s = linear_log_probs(c.x, c.head, c.targets, true);
  for (const at::Tensor& t : {s.log_probs, s.entropies, s.logsumexps}) EXPECT_TRUE(at::equal(t, at::zeros({5})));
  for (const at::Tensor& g : gradients(c, s)) EXPECT_TRUE(at::equal(g, at::zeros_like(g)));
}

// Kept logits are overwritten by the first backward; a second one computes them again.
TEST(LinearLoss, BackwardTwiceGivesTheSame) {
  const Case c = make_case(12, 5, 30, at::kDouble, false);
  const at::Tensor loss = linear_log_probs(c.x, c.head, c.targets).log_probs.sum();
  const auto first = torch::autograd::grad({loss}, {c.x, c.head.dense}, {}, /*retain_graph=*/true);
  const auto second = torch::autograd::grad({loss}, {c.x, c.head.dense});
  for (int i = 0; i < 2; ++i) expect_relative(second[i], first[i], 1e-14);
}

TEST(LinearLoss, ExtremeLogitsStayFinite) {
  Case c = make_case(6, 4, 50, at::kFloat, false);
  c.head.dense = (c.head.dense.detach() * 1e4).requires_grad_();
  const TargetStatistics s = linear_log_probs(c.x, c.head, c.targets, true, 6 * 7 * 4);
  EXPECT_TRUE(at::isfinite(s.log_probs).all().item<bool>());
  EXPECT_GE(s.entropies.min().item<double>(), -1e-6);
  for (const at::Tensor& g : gradients(c, s)) EXPECT_TRUE(at::isfinite(g).all().item<bool>());
}

TEST(LinearLoss, TargetsOutsideTheVocabularyAreRefused) {
  Case c = make_case(6, 4, 50, at::kFloat, false);
  for (const int64_t wrong : {50, -1}) {
    c.targets.narrow(0, 0, 1).fill_(wrong);
    EXPECT_THROW(linear_log_probs(c.x, c.head, c.targets), Error);
  }
}

TEST(LinearLoss, DoesNotDependOnTheNumberOfThreads) {
  const Case c = make_case(64, 16, 500, at::kFloat, false);
  std::vector<at::Tensor> results[2];
  for (const int threads : {1, 2}) {
    at::set_num_threads(threads);
    const TargetStatistics s = linear_log_probs(c.x, c.head, c.targets, true, 64 * 100 * 4);
    results[threads - 1] = {s.log_probs, s.entropies};
  }
  at::set_num_threads(1);
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(at::equal(results[0][i], results[1][i]));
}

}  // namespace
}  // namespace puna::ops
