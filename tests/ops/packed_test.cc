// Products with packed weights against dense ones: within what rows of INT8 or BF16 allow, and the same bits in any
// batch.
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <thread>
#include <tuple>

#include "base/error.h"
#include "ops/experts.h"
#include "ops/linear.h"
#include "ops/packed.h"
#include "ops/share_out.h"

namespace puna::ops {
namespace {

using kernels::WeightFormat;

/// A random weight, packed, beside what it is in FP64. Scales have 8 bits, so that they are exact in BF16.
struct Both {
  Weight packed;
  at::Tensor values;  // [out, in] or [E, in, out]
};

Both random_floats(int64_t experts, int64_t out, int64_t in, const WeightFormat& format) {
  const int64_t matrices = std::max<int64_t>(experts, 1);
  const auto packed = std::make_shared<PackedWeight>(kernels::WeightShapes({out, in, format}, matrices), experts > 0);
  const bool e4m3 = format.bits == 8;
  std::vector<at::Tensor> values;
  for (int64_t i = 0; i < matrices; ++i) {
    const at::Tensor bits = (at::randn({out, in}) * (e4m3 ? 1 : 0.1)).to(e4m3 ? at::kFloat8_e4m3fn : at::kBFloat16);
    const at::Tensor scales = e4m3 ? at::rand({out, 1}) * 0.2 : at::ones({out, 1});
    kernels::pack_floats(packed->shapes[i], bits.const_data_ptr(), in, 1,
                         e4m3 ? scales.const_data_ptr<float>() : nullptr, packed->at(i));
    const at::Tensor dense = bits.to(at::kFloat).to(at::kDouble) * scales.to(at::kDouble);
    values.push_back(experts > 0 ? dense.t() : dense);
  }
  return {{"test.weight", {}, {}, packed}, experts > 0 ? at::stack(values) : values[0]};
}

Both random_weight(int64_t experts, int64_t out, int64_t in, const WeightFormat& format) {
  if (format.floats) return random_floats(experts, out, in, format);
  const int64_t matrices = std::max<int64_t>(experts, 1), width = format.channel_scales ? in : format.group;
  const int64_t groups = (in + width - 1) / width, low = format.bits == 4 ? -8 : -128;
  const auto packed = std::make_shared<PackedWeight>(kernels::WeightShapes({out, in, format}, matrices), experts > 0);
  std::vector<at::Tensor> values;
  const auto spread = [&](const at::Tensor& t) {
    return t.to(at::kDouble).repeat_interleave(width, 1).narrow(1, 0, in);
  };
  for (int64_t i = 0; i < matrices; ++i) {
    const at::Tensor q = at::randint(low, -low, {out, in}, at::kChar);
    const at::Tensor zeros =
        format.zeros ? at::randint(low / 2, -low / 2, {out, groups}, at::kChar) : at::zeros({out, groups}, at::kChar);
    const at::Tensor scales = at::randint(128, 256, {out, groups}, at::kFloat) / (format.bits == 4 ? 8192 : 131072);
    kernels::pack_weights(packed->shapes[i], q.const_data_ptr<int8_t>(), scales.const_data_ptr<float>(),
                          format.zeros ? zeros.const_data_ptr<int8_t>() : nullptr, packed->at(i));
    const at::Tensor dense = (q.to(at::kDouble) - spread(zeros)) * spread(scales);
    values.push_back(experts > 0 ? dense.t() : dense);
  }
  return {{"test.weight", {}, {}, packed}, experts > 0 ? at::stack(values) : values[0]};
}

Weight dense(const at::Tensor& values) { return {"test.weight", values.to(at::kFloat), {}}; }

TEST(ShareOut, RunsOnSeveralThreadsAtOnce) {
  at::set_num_threads(2);
  std::atomic<int> started = 0;
  std::array<bool, 2> met = {};
  share_out(2, [&](int64_t i) {
    ++started;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (started < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    met[static_cast<size_t>(i)] = started == 2;
  });
  at::set_num_threads(1);
  EXPECT_TRUE(met[0] && met[1]) << "one after the other";
}

const WeightFormat kFormats[] = {{4, 32, false, false}, {4, 32, false, true},  {4, 128, false, false},
                                 {8, 128, true, false}, {8, 32, false, false}, {8, 128, true, true},
                                 WeightFormat::bf16(),  WeightFormat::e4m3()};

/// How far a row's values may move when its groups are rounded to INT8: half a step of (largest magnitude) / 127. For
/// floats, when they are rounded to BF16: half of the last of 8 bits.
at::Tensor rounding_of(const at::Tensor& x, bool floats) {
  if (floats) return x.to(at::kDouble).abs() * 0x1p-9 * (1 + 1e-5);
  const int64_t K = x.size(1), group = kernels::kRowGroup, padded = kernels::row_layout(K).values;
  const at::Tensor groups = at::constant_pad_nd(x.to(at::kDouble).abs(), {0, padded - K}).view({x.size(0), -1, group});
  return (groups.amax(-1, true) / 254).expand_as(groups).reshape({x.size(0), padded}).narrow(1, 0, K) * (1 + 1e-5);
}

/// The bound for x w^T: rounding of x, and one rounding in FP32 for every product and sum, of floats or over a group of
/// 32 or more.
at::Tensor bound_of(const at::Tensor& x, const at::Tensor& w, bool floats) {
  const double roundings = 0x1p-24 * (4 + static_cast<double>(x.size(1)) / (floats ? 1 : 16));
  return at::mm(rounding_of(x, floats) + x.to(at::kDouble).abs() * roundings, w.abs().t());
}

void expect_within(const at::Tensor& actual, const at::Tensor& expected, const at::Tensor& bound) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  const at::Tensor excess = (actual.to(at::kDouble) - expected).abs() - bound;
  EXPECT_FALSE(excess.isnan().any().item<bool>());
  EXPECT_LE(excess.max().item<double>(), 0);
}

TEST(PackedLinear, IsTheDenseOneWithinTheRoundingOfItsRows) {
  at::manual_seed(1);
  for (const WeightFormat& format : kFormats) {
    const Both a = random_weight(0, 50, 200, format), b = random_weight(0, 33, 200, {8, 128, true, false});
    for (const int64_t T : {1, 7, 40}) {
      SCOPED_TRACE(testing::Message() << format.bits << " bits, " << format.group << ", " << T << " rows");
      const at::Tensor x = at::randn({T, 200}) * at::randn({T, 1});
      const std::vector<at::Tensor> y = linears(x, {&a.packed, &b.packed});
      const at::Tensor expected = at::mm(x.to(at::kDouble), a.values.t());
      expect_within(y[0], expected, bound_of(x, a.values, format.floats));
      expect_within(y[1], at::mm(x.to(at::kDouble), b.values.t()), bound_of(x, b.values, false));
      EXPECT_TRUE(at::equal(linear(x, a.packed), y[0]));
      const at::Tensor bias = at::randn({50});
      EXPECT_TRUE(at::equal(linear(x, a.packed, bias), y[0] + bias));
      // BF16 rows are taken as they are, and the product is rounded once.
      const at::Tensor narrow = x.to(at::kBFloat16);
      EXPECT_TRUE(at::equal(linear(narrow, a.packed), linear(narrow.to(at::kFloat), a.packed).to(at::kBFloat16)));
    }
  }
}

TEST(PackedLinear, NothingComesOfNoRows) {
  const Both a = random_weight(0, 20, 64, kFormats[0]);
  EXPECT_EQ(linear(at::zeros({0, 64}), a.packed).sizes(), at::IntArrayRef({0, 20}));
}

TEST(PackedLinear, AdaptersAddUp) {
  at::manual_seed(2);
  Both plain = random_weight(0, 24, 96, kFormats[1]), routed = random_weight(3, 24, 96, kFormats[0]);
  const at::Tensor x = at::randn({9, 96});
  const at::Tensor y = linear(x, plain.packed), y_routed = grouped_linear(x, routed.packed, {0, 4, 4, 9});
  plain.packed.adapters = {{at::randn({2, 96}), at::randn({24, 2}), 0.5}, {at::randn({3, 96}), at::randn({24, 3}), 2}};
  at::Tensor expected = y;
  for (const LowRank& low : plain.packed.adapters)
    expected = expected + at::mm(at::mm(x, low.a.t()), low.b.t()) * low.scale;
  EXPECT_TRUE(at::allclose(linear(x, plain.packed), expected, 1e-5, 1e-4));
  routed.packed.adapters = {{at::randn({3, 2, 96}), at::randn({3, 24, 2}), 0.5}};
  const LowRank& low = routed.packed.adapters[0];
  const auto added = [&](int64_t begin, int64_t rows, int64_t e) {
    return at::mm(at::mm(x.narrow(0, begin, rows), low.a[e].t()), low.b[e].t()) * low.scale;
  };
  expected = y_routed + at::cat({added(0, 4, 0), added(4, 5, 2)});
  for (const bool record : {true, false}) {
    const at::AutoGradMode mode(record);
    EXPECT_TRUE(at::allclose(grouped_linear(x, routed.packed, {0, 4, 4, 9}), expected, 1e-5, 1e-4));
  }
}

TEST(PackedLinear, NoGradientPasses) {
  const Both plain = random_weight(0, 24, 96, kFormats[0]), routed = random_weight(2, 24, 96, kFormats[0]);
  const at::Tensor x = at::randn({3, 96}).requires_grad_();
  const auto names_the_remedy = testing::ThrowsMessage<Error>(testing::HasSubstr("--weights dense"));
  EXPECT_THAT([&] { linear(x, plain.packed); }, names_the_remedy);
  EXPECT_THAT([&] { linears(x, {&plain.packed, &plain.packed}); }, names_the_remedy);
  EXPECT_THAT([&] { grouped_linear(x, routed.packed, {0, 1, 3}); }, names_the_remedy);
  EXPECT_THAT([&] { dense_of(plain.packed); }, names_the_remedy);
  const c10::NoGradGuard guard;
  EXPECT_NO_THROW(linear(x, plain.packed));
}

/// A layer of experts in one format for each weight.
struct Layer {
  Both gate, up, shared_down, gate_up, down;
  Layer(int64_t D, int64_t F, int64_t E, const WeightFormat& shared, const WeightFormat& routed)
      : gate(random_weight(0, F, D, shared)),
        up(random_weight(0, F, D, shared)),
        shared_down(random_weight(0, D, F, shared)),
        gate_up(random_weight(E, 2 * F, D, routed)),
        down(random_weight(E, D, F, routed)) {}

  ExpertWeights weights() const {
    return {&gate.packed, &up.packed, &shared_down.packed, &gate_up.packed, &down.packed};
  }
};

/// A feed-forward layer in FP64, and how far rounding its input and its hidden values may move the result.
struct Bounded {
  at::Tensor value, bound;
};

Bounded gated(const at::Tensor& x, double score, const at::Tensor& gate, const at::Tensor& up, const at::Tensor& down,
              bool floats) {
  const at::Tensor g = at::mm(x, gate.t()) * score, u = at::mm(x, up.t()) * score, silu = at::silu(g);
  const at::Tensor dg = bound_of(x, gate, floats) * score, du = bound_of(x, up, floats) * score;
  // |silu'| < 1.1; the hidden value moves by both factors, then is rounded itself.
  const at::Tensor a = silu * u, moved = 1.1 * dg * u.abs() + (silu.abs() + 1.1 * dg) * du + a.abs() * 1e-6;
  const at::Tensor rounded = rounding_of(a.abs() + moved, floats);
  return {at::mm(a, down.t()), at::mm(moved + rounded + a.abs() * 1e-5, down.abs().t())};
}

TEST(PackedExperts, AreTheDefinitionWithinTheRoundingsOfTheirRows) {
  at::manual_seed(5);
  const int64_t D = 160, F = 96, E = 4;
  const c10::NoGradGuard guard;
  for (const auto& [shared, routed] : {std::pair(kFormats[0], kFormats[0]), std::pair(kFormats[3], kFormats[1]),
                                       std::pair(kFormats[6], kFormats[7]), std::pair(kFormats[0], kFormats[6])}) {
    const Layer layer(D, F, E, shared, routed);
    for (const int64_t A : {1, 2}) {
      for (const int64_t T : {1, 5, 33}) {
        for (const bool on_input : {true, false}) {
          SCOPED_TRACE(testing::Message() << T << " tokens, " << A << " experts, on input " << on_input);
          const at::Tensor x = at::randn({T, D}), exact = x.to(at::kDouble);
          const Routing routing = route(at::randn({T, E}), A, RouterScore::kSigmoid);
          const at::Tensor y = experts(x, routing, layer.weights(), on_input);
          Bounded expected =
              gated(exact, 1, layer.gate.values, layer.up.values, layer.shared_down.values, shared.floats);
          for (int64_t t = 0; t < T; ++t) {
            for (int64_t a = 0; a < A; ++a) {
              const auto e = routing.selected[t][a].item<int64_t>();
              const auto score = routing.scores[t][a].item<double>();
              const at::Tensor gate_up = layer.gate_up.values[e].t();
              const Bounded one = gated(exact.narrow(0, t, 1), on_input ? score : 1, gate_up.narrow(0, 0, F),
                                        gate_up.narrow(0, F, F), layer.down.values[e].t(), routed.floats);
              expected.value[t] += one.value[0] * (on_input ? 1 : score);
              expected.bound[t] += one.bound[0] * (on_input ? 1 : score) + one.value[0].abs() * 1e-6;
            }
          }
          expect_within(y, expected.value, expected.bound + expected.value.abs() * 1e-6);
        }
      }
    }
  }
}

TEST(PackedExperts, ARowIsTheSameInAnyBatch) {
  at::manual_seed(6);
  const c10::NoGradGuard guard;
  // So wide that what lies between the products is cut into pieces.
  const int64_t D = 96, F = 40'000, T = 130;
  const Layer integers(D, F, 3, kFormats[0], kFormats[0]), floats(D, F, 3, kFormats[6], kFormats[7]);
  for (const auto& [layer, dtype] : {std::tuple<const Layer&, at::ScalarType>(integers, at::kFloat),
                                     std::tuple<const Layer&, at::ScalarType>(integers, at::kBFloat16),
                                     std::tuple<const Layer&, at::ScalarType>(floats, at::kBFloat16)}) {
    const at::Tensor x = at::randn({T, D}).to(dtype), logits = at::randn({T, 3}).to(dtype);
    const auto run = [&](int64_t begin, int64_t rows) {
      const Routing routing = route(logits.narrow(0, begin, rows), 1, RouterScore::kSigmoid);
      return experts(x.narrow(0, begin, rows), routing, layer.weights(), true);
    };
    const at::Tensor all = run(0, T);
    for (const int64_t row : {0, 41, 129}) EXPECT_TRUE(at::equal(run(row, 1), all.narrow(0, row, 1))) << row;
    EXPECT_TRUE(at::equal(run(10, 20), all.narrow(0, 10, 20)));
    EXPECT_TRUE(
        at::equal(feed_forward(x, layer.gate.packed, layer.up.packed, layer.shared_down.packed).narrow(0, 7, 1),
                  feed_forward(x.narrow(0, 7, 1), layer.gate.packed, layer.up.packed, layer.shared_down.packed)));
  }
}

TEST(PackedExperts, WorkBesideDenseWeightsAndAdapters) {
  at::manual_seed(7);
  const c10::NoGradGuard guard;
  Layer layer(64, 96, 3, kFormats[4], kFormats[4]);
  const at::Tensor x = at::randn({6, 64});
  const Routing routing = route(at::randn({6, 3}), 1, RouterScore::kSigmoid);
  const at::Tensor y = experts(x, routing, layer.weights(), true);
  const double size = y.abs().max().item<double>();
  const Weight gate = dense(layer.gate.values), up = dense(layer.up.values), down = dense(layer.shared_down.values);
  const Weight gate_up = dense(layer.gate_up.values), routed_down = dense(layer.down.values);
  // Dense parts take rows that are not rounded: no more than a hundredth of the result, with INT8 weights.
  for (const ExpertWeights& weights : {ExpertWeights{&gate, &up, &down, &layer.gate_up.packed, &layer.down.packed},
                                       ExpertWeights{&gate, &up, &down, &layer.gate_up.packed, &routed_down},
                                       ExpertWeights{&layer.gate.packed, &up, &down, &gate_up, &routed_down}})
    EXPECT_LT((experts(x, routing, weights, true) - y).abs().max().item<double>(), 0.03 * size);
  layer.down.packed.adapters = {{at::randn({3, 2, 96}), at::zeros({3, 64, 2}), 1}};
  EXPECT_LT((experts(x, routing, layer.weights(), true) - y).abs().max().item<double>(), 0.03 * size);
  layer.down.packed.adapters[0].b = at::randn({3, 64, 2});
  EXPECT_GT((experts(x, routing, layer.weights(), true) - y).abs().max().item<double>(), 0.1 * size);
}

}  // namespace
}  // namespace puna::ops
