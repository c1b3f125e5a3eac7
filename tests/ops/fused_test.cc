// Every fused node against the plain ops under autograd: values and gradients, FP64, FP32 and BF16, ragged and edge
// cases.
#include <gtest/gtest.h>

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <sys/mman.h>
#include <torch/csrc/autograd/autograd.h>

#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "ops/fused.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/rope.h"

namespace puna::ops {
namespace {

using Tensors = std::vector<at::Tensor>;
using Compute = std::function<at::Tensor(const Tensors&)>;

double bound_of(at::ScalarType dtype) { return dtype == at::kDouble ? 1e-12 : dtype == at::kFloat ? 4e-6 : 3e-2; }

void expect_relative(const at::Tensor& actual, const at::Tensor& expected, double bound) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  const double size = expected.to(at::kDouble).norm().item<double>();
  const double off = (actual.to(at::kDouble) - expected.to(at::kDouble)).norm().item<double>();
  EXPECT_LE(off, bound * size + 1e-30);  // false for NaN
}

// Value and gradients of a fixed random weighting of the output.
Tensors value_and_gradients(const Compute& compute, const Tensors& inputs, at::ScalarType dtype) {
  Tensors leaves;
  for (const at::Tensor& t : inputs) leaves.push_back(t.detach().to(dtype).clone().requires_grad_());
  const at::Tensor y = compute(leaves);
  at::manual_seed(99);
  const at::Tensor seeds = at::randn(y.sizes(), at::kDouble).to(dtype);
  Tensors all = {y.detach()};
  for (const at::Tensor& g : torch::autograd::grad({y}, leaves, {seeds}, std::nullopt, false, true)) all.push_back(g);
  return all;
}

// Inputs are given in fp64; narrower types are compared with fp64 arithmetic on the rounded inputs.
void expect_same(const Compute& fused, const Compute& plain, const Tensors& inputs) {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    SCOPED_TRACE(testing::Message() << "dtype " << dtype);
    Tensors stored;
    for (const at::Tensor& t : inputs) stored.push_back(t.to(dtype).to(at::kDouble));
    const Tensors expected = value_and_gradients(plain, stored, at::kDouble);
    const Tensors actual = value_and_gradients(fused, stored, dtype);
    for (size_t i = 0; i < actual.size(); ++i) {
      SCOPED_TRACE(testing::Message() << (i ? "gradient " : "value ") << i);
      ASSERT_TRUE(actual[i].defined());
      EXPECT_EQ(actual[i].scalar_type(), dtype);
      expect_relative(actual[i], expected[i], bound_of(dtype));
    }
  }
}

// The same bits on one thread and on two: of our kernels, not of the library's matrix products.
void expect_deterministic(const Compute& fused, const Tensors& inputs) {
  Tensors results[2];
  for (const int threads : {1, 2}) {
    at::set_num_threads(threads);
    results[threads - 1] = value_and_gradients(fused, inputs, at::kFloat);
  }
  at::set_num_threads(1);
  for (size_t i = 0; i < results[0].size(); ++i) EXPECT_TRUE(at::equal(results[0][i], results[1][i])) << i;
}

at::Tensor random(at::IntArrayRef shape) { return at::randn(shape, at::kDouble); }

TEST(Fused, RmsNorm) {
  at::manual_seed(1);
  for (const auto& [T, D] : std::vector<std::pair<int64_t, int64_t>>{{1, 2}, {3, 7}, {130, 40}, {65, 64}}) {
    const Compute fused = [](const Tensors& in) { return fused_rms_norm(in[0], in[1], 1e-5); };
    const Compute plain = [](const Tensors& in) {
      return in[0] * (in[0].square().mean(-1, true) + 1e-5).rsqrt() * in[1];
    };
    expect_same(fused, plain, {random({T, D}), random({D})});
  }
  const Compute fused = [](const Tensors& in) { return fused_rms_norm(in[0], in[1], 1e-5); };
  expect_deterministic(fused, {random({3000, 48}), random({48})});
}

TEST(Fused, LinearsAndFeedForward) {
  at::manual_seed(2);
  const Compute linears = [](const Tensors& in) { return at::cat(fused_linears(in[0], {in[1], in[2]}), 1); };
  const Compute plain_linears = [](const Tensors& in) {
    return at::cat({at::mm(in[0], in[1].t()), at::mm(in[0], in[2].t())}, 1);
  };
  expect_same(linears, plain_linears, {random({9, 6}), random({4, 6}), random({11, 6})});
  const Compute fused = [](const Tensors& in) { return fused_feed_forward(in[0], in[1], in[2], in[3]); };
  const Compute plain = [](const Tensors& in) {
    return at::mm(at::silu(at::mm(in[0], in[1].t())) * at::mm(in[0], in[2].t()), in[3].t());
  };
  expect_same(fused, plain, {random({33, 12}), random({19, 12}), random({19, 12}), random({12, 19})});
}

// Each span by masked scores, after the plain rotation and norm.
at::Tensor plain_attention(const Tensors& in, int64_t K, const HeadPreparation& p, const std::vector<RowSpan>& spans) {
  const int64_t T = in[0].size(0), H = in[0].size(1) / K, G = in[1].size(1) / K;
  at::Tensor q = in[0].view({T, H, K}), k = in[1].view({T, G, K});
  const at::Tensor v = in[2].view({T, G, K}).repeat_interleave(H / G, 1);
  if (p.rotations.defined()) {
    const at::Tensor rotations = p.rotations.to(at::kComplexDouble);
    q = rotate(q, rotations);
    k = rotate(k, rotations);
  }
  if (p.eps >= 0) {
    q = unit_rms(q, p.eps);
    k = unit_rms(k, p.eps);
  }
  if (p.factors.defined()) q = q * p.factors.to(at::kDouble);
  k = k.repeat_interleave(H / G, 1);
  at::Tensor hidden = at::full({T, T}, -std::numeric_limits<double>::infinity(), at::kDouble);
  for (const RowSpan& s : spans)
    hidden.narrow(0, s.row, s.num_rows)
        .narrow(1, s.row, s.num_rows)
        .copy_(at::full({s.num_rows, s.num_rows}, -std::numeric_limits<double>::infinity(), at::kDouble).triu(1));
  const at::Tensor scores = at::einsum("thk,shk->hts", {q, k}) / std::sqrt(static_cast<double>(K)) + hidden;
  return at::einsum("hts,shk->thk", {scores.softmax(-1), v}).reshape({T, H * K});
}

std::vector<RowSpan> spans_of(const std::vector<int64_t>& lengths) {
  std::vector<RowSpan> spans;
  int64_t row = 0;
  for (const int64_t n : lengths) {
    spans.push_back({row, n});
    row += n;
  }
  return spans;
}

at::Tensor rotations_of(const std::vector<RowSpan>& spans, int64_t K, at::ScalarType dtype) {
  std::vector<int64_t> positions;
  for (const RowSpan& s : spans)
    for (int64_t i = 0; i < s.num_rows; ++i) positions.push_back(i);
  return rotations(positions, rope_frequencies(10000, K), at::kCPU, dtype);
}

HeadPreparation in_type_of(const at::Tensor& x, const HeadPreparation& p) {
  const bool fp64 = x.scalar_type() == at::kDouble;
  HeadPreparation result = p;
  if (p.rotations.defined()) result.rotations = p.rotations.to(fp64 ? at::kComplexDouble : at::kComplexFloat);
  if (p.factors.defined()) result.factors = p.factors.to(fp64 ? at::kDouble : at::kFloat);
  return result;
}

TEST(Fused, AttentionOverRaggedSpans) {
  at::manual_seed(3);
  const std::vector<std::vector<int64_t>> lengths = {{1}, {1, 1, 1}, {5, 1, 17}, {16, 32}, {15, 31, 33}, {100, 2}};
  for (const auto& of_spans : lengths) {
    const std::vector<RowSpan> spans = spans_of(of_spans);
    const int64_t T = spans.back().row + spans.back().num_rows;
    for (const auto& [H, G, K] :
         std::vector<std::tuple<int64_t, int64_t, int64_t>>{{4, 2, 8}, {3, 1, 16}, {2, 2, 20}}) {
      for (const int mode : {0, 1, 2, 3}) {
        SCOPED_TRACE(testing::Message() << testing::PrintToString(of_spans) << " H " << H << " G " << G << " K " << K
                                        << " mode " << mode);
        HeadPreparation p;
        if (mode == 1 || mode == 2) p.rotations = rotations_of(spans, K, at::kDouble);
        if (mode == 2) p.eps = 1e-5;
        if (mode == 3) p.factors = 1 + at::rand({T, 1, 1}, at::kDouble);
        const int64_t width = K;
        const Compute fused = [&](const Tensors& in) {
          return fused_attention(in[0], in[1], in[2], width, in_type_of(in[0], p), spans);
        };
        const Compute plain = [&](const Tensors& in) {
          return plain_attention(in, width, in_type_of(in[0], p), spans);
        };
        expect_same(fused, plain, {random({T, H * K}), random({T, G * K}), random({T, G * K})});
      }
    }
  }
}

TEST(Fused, AttentionIsTheSameOnAnyNumberOfThreads) {
  at::manual_seed(4);
  const std::vector<RowSpan> spans = spans_of({40, 3, 128, 1, 70});
  const HeadPreparation p = {rotations_of(spans, 16, at::kFloat), {}, 1e-5};
  const Compute fused = [&](const Tensors& in) { return fused_attention(in[0], in[1], in[2], 16, p, spans); };
  expect_deterministic(fused, {random({242, 64}), random({242, 32}), random({242, 32})});
}

// An optimiser that divides gradients by their size turns rounding into steps.
TEST(Fused, AQueryThatSeesOneKeyHasGradientsOfExactlyZero) {
  at::manual_seed(5);
  const std::vector<RowSpan> spans = spans_of({1, 18});
  const Compute fused = [&](const Tensors& in) { return fused_attention(in[0], in[1], in[2], 8, {}, spans); };
  const Tensors all = value_and_gradients(fused, {random({19, 16}), random({19, 8}), random({19, 8})}, at::kFloat);
  EXPECT_TRUE(at::equal(all[1].narrow(0, 0, 2), at::zeros({2, 16})));
  EXPECT_TRUE(at::equal(all[2][0], at::zeros({8})));
  EXPECT_GT(all[1].narrow(0, 2, 17).abs().max().item<double>(), 0);
}

TEST(Fused, AttentionOfLargeScoresStaysFinite) {
  at::manual_seed(6);
  const std::vector<RowSpan> spans = spans_of({50});
  const Compute fused = [&](const Tensors& in) { return fused_attention(in[0], in[1], in[2], 8, {}, spans); };
  const Tensors inputs = {random({50, 8}) * 1e3, random({50, 8}) * 1e3, random({50, 8})};
  for (const at::Tensor& t : value_and_gradients(fused, inputs, at::kFloat))
    EXPECT_TRUE(at::isfinite(t).all().item<bool>());
}

// scores come as an input, so that their gradient is compared too.
at::Tensor plain_experts(const Tensors& in, Routing routing) {
  routing.scores = in[1];
  at::Tensor rows = gather_rows(in[0], routing) * gather_scores(routing);
  Tensors pieces;
  for (int64_t e = 0; e < in[2].size(0); ++e) {
    const at::Tensor x = rows.narrow(0, routing.offsets[e], routing.offsets[e + 1] - routing.offsets[e]);
    const auto halves = at::mm(x, in[2][e]).chunk(2, 1);
    pieces.push_back(at::mm(at::silu(halves[0]) * halves[1], in[3][e]));
  }
  return combine_rows(at::cat(pieces), routing);
}

Compute experts_with(const Routing& routing) {
  return [routing](const Tensors& in) {
    Routing mine = routing;
    mine.scores = in[1];
    return fused_experts(in[0], mine, in[2], in[3]);
  };
}

TEST(Fused, ExpertsWithAndWithoutRows) {
  at::manual_seed(7);
  const int64_t T = 23, E = 5, D = 12, F = 9;
  for (const int64_t A : {1, 2, 5}) {
    for (const int crowd : {0, 1, 2}) {  // as they come; all to one; sorted already
      SCOPED_TRACE(testing::Message() << "A " << A << ", crowd " << crowd);
      at::Tensor logits = random({T, E});
      if (crowd == 1) logits.select(1, 3).add_(100);
      if (crowd == 2) logits = std::get<0>(logits.argmax(1).sort()).unsqueeze(1).eq(at::arange(E)).to(at::kDouble);
      const Routing routing = route(logits, A, RouterScore::kSigmoid);
      EXPECT_EQ(routing.sorted, A == 1 && crowd > 0);
      const Compute plain = [&](const Tensors& in) { return plain_experts(in, routing); };
      const Tensors inputs = {random({T, D}), at::rand({T, A}, at::kDouble), random({E, D, 2 * F}), random({E, F, D})};
      expect_same(experts_with(routing), plain, inputs);
    }
  }
}

TEST(Fused, ExpertsWithoutRowsAreNeverReadAndTheirGradientIsZero) {
  at::manual_seed(8);
  const Routing routing = route(at::tensor({0.0, 1.0, 0.0, 0.0, 2.0, 0.0}).view({2, 3}), 1, RouterScore::kSigmoid);
  Tensors inputs = {random({2, 4}), at::rand({2, 1}, at::kDouble), random({3, 4, 6}), random({3, 3, 4})};
  for (const int64_t e : {0, 2})
    for (const int w : {2, 3}) inputs[w][e].fill_(std::nan(""));
  const Tensors all = value_and_gradients(experts_with(routing), inputs, at::kFloat);
  for (const at::Tensor& t : all) EXPECT_FALSE(t.isnan().any().item<bool>());
  for (const int w : {3, 4})
    for (const int64_t e : {0, 2}) EXPECT_TRUE(at::equal(all[w][e], at::zeros_like(all[w][e])));
  EXPECT_GT(all[3][1].abs().max().item<double>(), 0);
}

// Offsets beyond 2^31 values, without the memory: rows are counted from far before the only one that is there.
TEST(Fused, RowOffsetsAreSixtyFourBit) {
  const int64_t width = 1 << 20, far = (int64_t{1} << 33) / width;
  const auto before = [&]<typename T>(T* row, int64_t rows) {
    return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(row) - static_cast<uintptr_t>(far * rows) * sizeof(T));
  };
  const auto& kernels = kernels::training_kernels<float>();
  std::vector<float> row(width, 2.0f), x(width, 0.5f), to(width);
  const float score = 3.0f;
  const std::vector<int64_t> token(1, far), choice(1, 0);
  const kernels::RoutedRows routed = {token.data(), choice.data(), nullptr, 1};
  kernels.gather_scaled(before(row.data(), width), &score, routed, 0, 1, width, to.data());
  EXPECT_EQ(to.front(), 6.0f);
  EXPECT_EQ(to.back(), 6.0f);
  kernels.gather(before(row.data(), width), routed, 0, 1, width, to.data());
  EXPECT_EQ(to.back(), 2.0f);
  kernels.combine(before(row.data(), width), {nullptr, nullptr, token.data(), 1}, 0, 1, width, to.data());
  EXPECT_EQ(to.back(), 2.0f);
  // Token `far` alone, whose row is the first.
  const std::vector<int64_t> first(1, 0);
  float dscore = 0;
  std::vector<float> dx(width);
  kernels.combine_scaled(row.data(), before(x.data(), width), before(&score, 1),
                         {nullptr, nullptr, before(first.data(), 1), 1}, far, far + 1, width, before(dx.data(), width),
                         before(&dscore, 1));
  EXPECT_EQ(dx.back(), 6.0f);
  EXPECT_EQ(dscore, static_cast<float>(width));
}

// Rows whose stride is that of gate and up together, the second of them more than 2^31 values away.
TEST(Fused, StridesAreSixtyFourBit) {
  const int64_t stride = int64_t{1} << 32;
  const auto map = [](int64_t values) {  // address space alone; a page comes when it is written
    void* at = mmap(nullptr, static_cast<size_t>(values) * sizeof(float), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? nullptr : static_cast<float*>(at);
  };
  float* gate = map(stride + 8);
  ASSERT_NE(gate, nullptr);
  float* up = gate + 4;
  gate[stride] = 1;
  up[stride] = 3;
  const auto& kernels = kernels::training_kernels<float>();
  std::array<float, 2> y{}, again{};
  kernels.swiglu(gate, up, 2, 1, stride, y.data());
  const float sigmoid = 1 / (1 + std::exp(-1.0f));
  EXPECT_NEAR(y[1], 3 * sigmoid, 1e-6);
  float* dgate = map(stride + 8);
  ASSERT_NE(dgate, nullptr);
  const std::array<float, 2> dy = {0, 1};
  kernels.swiglu_backward(gate, up, dy.data(), 2, 1, stride, dgate, dgate + 4, again.data());
  EXPECT_EQ(again, y);
  EXPECT_NEAR(dgate[stride + 4], sigmoid, 1e-6);
  EXPECT_NEAR(dgate[stride], 3 * sigmoid * (1 + 1 - sigmoid), 1e-5);
  for (float* mapped : {gate, dgate}) munmap(mapped, static_cast<size_t>(stride + 8) * sizeof(float));
}

// Adapters are not for these nodes; nor is anything when nothing is recorded.
TEST(Fused, IsForRecordingOnPlainWeightsAlone) {
  const at::Tensor x = at::zeros({2, 3});
  Weight w = {"w", at::zeros({4, 3}), {}};
  EXPECT_TRUE(can_fuse(x, {&w}));
  EXPECT_FALSE(can_fuse(x.to(at::kHalf)));
  EXPECT_FALSE(can_fuse(x.to(at::kDouble), {&w}));
  w.adapters.push_back({at::zeros({1, 3}), at::zeros({4, 1}), 1});
  EXPECT_FALSE(can_fuse(x, {&w}));
  const c10::NoGradGuard guard;
  EXPECT_FALSE(can_fuse(x));
}

}  // namespace
}  // namespace puna::ops
