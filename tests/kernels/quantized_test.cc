// Quantised products: each instruction set against integers computed plainly, and against the reference bit for bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "base/parallel_for.h"
#include "kernels/formats/floats.h"
#include "kernels/quantized/matmul.h"
#include "kernels/quantized/rounding.h"
#include "tests/kernels/aligned.h"

namespace puna::kernels {
namespace {

void serial(int64_t count, const std::function<void(int64_t)>& work) {
  for (int64_t i = 0; i < count; ++i) work(i);
}

enum class Fill { Random, Lowest, Highest, Alternating };

/// A weight and rows with their plain values. Scales have 8 bits, so that they are exact in BF16.
struct Case {
  WeightShape shape;
  int64_t rows, blocks, groups;
  RowLayout of_row;
  std::vector<int8_t> q, zeros, x;
  std::vector<float> scales, x_scales;
  std::vector<int16_t> sums;
  Aligned packed;

  Case(const WeightShape& s, int64_t m, Fill fill, bool unit_scales, unsigned seed)
      : shape(s),
        rows(m),
        blocks(packed_layout(s).blocks),
        groups(s.format.channel_scales ? 1 : blocks),
        of_row(row_layout(s.k)),
        packed(packed_layout(s).total_bytes) {
    std::mt19937 random(seed);
    const int low = -(1 << (s.format.bits - 1)), high = -low - 1;
    const auto value = [&](int lowest, int highest, size_t i) {
      const bool down = fill == Fill::Lowest || (fill == Fill::Alternating && i % 3 == 0);
      return fill == Fill::Random ? std::uniform_int_distribution(lowest, highest)(random) : down ? lowest : highest;
    };
    for (int64_t i = 0; i < s.n * s.k; ++i) q.push_back(static_cast<int8_t>(value(low, high, i)));
    const auto scale = [&] { return unit_scales ? 1.0f : static_cast<float>(128 + random() % 128) / 4096; };
    for (int64_t i = 0; i < s.n * groups; ++i) {
      scales.push_back(scale());
      if (s.format.zeros) zeros.push_back(static_cast<int8_t>(value(low, high, i + 1)));
    }
    for (int64_t r = 0; r < m; ++r) {
      for (int64_t k = 0; k < of_row.values; ++k) {
        if (k % kRowGroup == 0)
          x_scales.push_back(unit_scales ? 1.0f : std::uniform_real_distribution(0.01f, 1.0f)(random));
        if (k % kRowSum == 0) sums.push_back(0);
        x.push_back(k < s.k ? static_cast<int8_t>(value(-128, 127, k + r)) : int8_t{0});
        sums.back() = static_cast<int16_t>(sums.back() + x.back());
      }
    }
    pack_weights(shape, q.data(), scales.data(), zeros.empty() ? nullptr : zeros.data(), packed.get());
  }

  QuantizedRows quantized() { return {x.data(), x_scales.data(), sums.data()}; }

  int64_t group_of(int64_t k) const { return groups == 1 ? 0 : k / shape.format.group; }

  /// Without roundings but the last.
  double exact(int64_t r, int64_t n, double* magnitude) const {
    double sum = 0;
    for (int64_t k = 0; k < shape.k; ++k) {
      const int zero = zeros.empty() ? 0 : zeros[n * groups + group_of(k)];
      const double product = double(q[n * shape.k + k] - zero) * x[r * of_row.values + k] *
                             scales[n * groups + group_of(k)] * x_scales[r * of_row.scales + k / kRowGroup];
      sum += product;
      *magnitude += std::abs(product);
    }
    return sum;
  }
};

std::vector<float> product(Case& c, Isa isa, const ParallelFor& parallel = serial) {
  const std::byte* weights[] = {c.packed.get()};
  const int64_t offsets[] = {0, c.rows};
  std::vector<float> out(c.rows * c.shape.n, std::numeric_limits<float>::quiet_NaN());
  Aligned workspace(matmul_workspace_bytes(c.shape, c.rows));
  MatmulProblem problem = {.shape = c.shape,
                           .num_experts = 1,
                           .weights = weights,
                           .offsets = offsets,
                           .x = c.quantized(),
                           .out = out.data(),
                           .out_stride = c.shape.n};
  matmul(problem, isa, workspace.get(), parallel);
  return out;
}

std::vector<WeightFormat> formats() {
  std::vector<WeightFormat> all;
  for (int bits : {2, 3, 4, 8}) {
    for (int64_t group : {32, 128}) {
      for (bool channel : {false, true}) {
        for (bool zeros : {false, true}) all.push_back({bits, group, channel, zeros});
      }
    }
  }
  return all;
}

std::string describe(const Case& c, Isa isa) {
  const WeightFormat& f = c.shape.format;
  return fmt::format("{}: {} rows, {} by {}, {} bits, groups of {}, channel {}, zeros {}", isa_name(isa), c.rows,
                     c.shape.n, c.shape.k, f.bits, f.group, f.channel_scales, f.zeros);
}

std::vector<Isa> available() {
  std::vector<Isa> isas;
  for (Isa isa : kIsas) {
    if (isa_available(isa)) isas.push_back(isa);
  }
  return isas;
}

// With scales of 1 a sum under 2^24 is an integer in FP32 too, so that any lost unit shows.
TEST(QuantizedMatmul, DotsAreExactIntegersAtTheExtremes) {
  for (const WeightFormat& format : formats()) {
    for (Fill fill : {Fill::Random, Fill::Lowest, Fill::Highest, Fill::Alternating}) {
      Case c({18, 2 * 128 + 36, format}, 13, fill, true, 1);
      for (Isa isa : available()) {
        const std::vector<float> out = product(c, isa);
        for (int64_t i = 0; i < c.rows * c.shape.n; ++i) {
          double magnitude = 0;
          const double expected = c.exact(i / c.shape.n, i % c.shape.n, &magnitude);
          ASSERT_LT(magnitude, 0x1p24);
          ASSERT_EQ(out[i], expected) << describe(c, isa) << ", at " << i;
        }
      }
    }
  }
}

TEST(QuantizedMatmul, EveryShapeIsTheReferenceBitForBitAndCloseToExact) {
  const std::pair<int64_t, int64_t> sizes[] = {{1, 1}, {16, 32}, {17, 31}, {33, 129}, {5, 260}, {64, 384}};
  for (const WeightFormat& format : formats()) {
    for (const auto& [n, k] : sizes) {
      for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 31}) {
        Case c({n, k, format}, rows, Fill::Random, false, static_cast<unsigned>(n * 31 + k + rows));
        const std::vector<float> reference = product(c, Isa::Reference);
        for (int64_t i = 0; i < rows * n; ++i) {
          double magnitude = 0;
          const double expected = c.exact(i / n, i % n, &magnitude);
          const double bound = (c.blocks * 2 + 2) * 0x1p-24 * magnitude;
          ASSERT_LE(std::abs(reference[i] - expected), bound) << describe(c, Isa::Reference);
        }
        for (Isa isa : available())
          ASSERT_THAT(product(c, isa), testing::ElementsAreArray(reference)) << describe(c, isa);
      }
    }
  }
}

TEST(QuantizedMatmul, ARowIsTheSameInAnyBatchAndOnAnyThreads) {
  for (int bits : {3, 4, 8}) {
    // Wide enough that panels and tiles are cut into several work items.
    Case all({1040, 5120, {bits, 128, false, true}}, 131, Fill::Random, false, 7);
    for (Isa isa : available()) {
      if (isa == Isa::Reference) continue;
      const std::vector<float> whole = product(all, isa);
      const ParallelFor threads = [](int64_t count, const std::function<void(int64_t)>& work) {
        parallel_for(count, 3, work);
      };
      ASSERT_THAT(product(all, isa, threads), testing::ElementsAreArray(whole));
      for (int64_t row : {0, 12, 57, 128, 130}) {
        const std::byte* weights[] = {all.packed.get()};
        const int64_t offsets[] = {0, 1};
        const int32_t index = static_cast<int32_t>(row);
        std::vector<float> alone(all.shape.n);
        Aligned workspace(matmul_workspace_bytes(all.shape, 1));
        MatmulProblem problem = {.shape = all.shape,
                                 .num_experts = 1,
                                 .weights = weights,
                                 .offsets = offsets,
                                 .x = all.quantized(),
                                 .row_index = &index,
                                 .out = alone.data(),
                                 .out_stride = all.shape.n};
        matmul(problem, isa, workspace.get(), serial);
        const auto begin = whole.begin() + row * all.shape.n;
        ASSERT_THAT(alone, testing::ElementsAreArray(begin, begin + all.shape.n)) << isa_name(isa) << " row " << row;
      }
    }
  }
}

TEST(QuantizedMatmul, ExpertsTakeTheirRowsAndFactors) {
  const WeightShape shape = {37, 200, {4, 32, false, false}};
  // The experts' formats differ in all but the group.
  const WeightFormat formats[] = {{2, 32, false, true}, {}, {4, 32, true, false}, {}};
  Case first({37, 200, formats[0]}, 9, Fill::Random, false, 3),
      second({37, 200, formats[2]}, 9, Fill::Random, false, 4);
  // An expert without rows may have no weights at all.
  const std::byte* weights[] = {first.packed.get(), nullptr, second.packed.get(), nullptr};
  const int64_t offsets[] = {0, 5, 5, 20, 20};
  std::vector<int32_t> index;
  std::vector<float> factors;
  for (int i = 0; i < 20; ++i) {
    index.push_back(i * 7 % 9);
    factors.push_back(0.25f + static_cast<float>(i));
  }
  second.x = first.x, second.x_scales = first.x_scales, second.sums = first.sums;
  const int64_t stride = shape.n + 3;
  for (Isa isa : available()) {
    const std::vector<float> with_first = product(first, isa), with_second = product(second, isa);
    std::vector<uint16_t> out(20 * stride, 0x1234);
    Aligned workspace(matmul_workspace_bytes(shape, 20));
    MatmulProblem problem = {.shape = shape,
                             .formats = formats,
                             .num_experts = 4,
                             .weights = weights,
                             .offsets = offsets,
                             .x = first.quantized(),
                             .row_index = index.data(),
                             .row_factors = factors.data(),
                             .out = out.data(),
                             .out_stride = stride,
                             .out_bf16 = true};
    matmul(problem, isa, workspace.get(), serial);
    for (int64_t r = 0; r < 20; ++r) {
      const std::vector<float>& plain = r < 5 ? with_first : with_second;
      for (int64_t n = 0; n < stride; ++n) {
        const uint16_t expected =
            n < shape.n ? bf16_from_float(plain[index[r] * shape.n + n] * factors[r]) : uint16_t{0x1234};
        ASSERT_EQ(out[r * stride + n], expected) << isa_name(isa) << " row " << r << " output " << n;
      }
    }
  }
}

TEST(QuantizedMatmul, ExpertsOfOtherGroupsAreABugOfTheCaller) {
  const WeightShape shape = {16, 128, {4, 32, false, false}};
  Case weight(shape, 1, Fill::Random, false, 3);
  const WeightFormat formats[] = {{2, 128, false, false}};
  const std::byte* weights[] = {weight.packed.get()};
  const int64_t offsets[] = {0, 1};
  std::vector<float> out(16);
  Aligned workspace(matmul_workspace_bytes(shape, 1));
  const MatmulProblem problem = {.shape = shape,
                                 .formats = formats,
                                 .num_experts = 1,
                                 .weights = weights,
                                 .offsets = offsets,
                                 .x = weight.quantized(),
                                 .out = out.data(),
                                 .out_stride = 16};
  EXPECT_THROW(matmul(problem, Isa::Reference, workspace.get(), serial), InternalError);
}

TEST(QuantizedMatmul, SeveralAtOnceAreEachAlone) {
  Case a({37, 200, {3, 32, false, true}}, 3, Fill::Random, false, 8);
  Case b({1040, 384, {8, 128, true, false}}, 21, Fill::Random, false, 9);
  Case* cases[] = {&a, &b};
  for (Isa isa : available()) {
    std::vector<std::vector<float>> outs;
    std::vector<std::vector<int64_t>> offsets;
    std::vector<const std::byte*> weights;
    for (const Case* c : cases) {
      outs.emplace_back(c->rows * c->shape.n, std::numeric_limits<float>::quiet_NaN());
      offsets.push_back({0, c->rows});
    }
    weights = {a.packed.get(), b.packed.get()};
    std::vector<MatmulProblem> problems;
    int64_t bytes = 0;
    for (size_t i = 0; i < 2; ++i) {
      problems.push_back({.shape = cases[i]->shape,
                          .num_experts = 1,
                          .weights = &weights[i],
                          .offsets = offsets[i].data(),
                          .x = cases[i]->quantized(),
                          .out = outs[i].data(),
                          .out_stride = cases[i]->shape.n});
      bytes += matmul_workspace_bytes(cases[i]->shape, cases[i]->rows);
    }
    Aligned workspace(bytes);
    matmul(problems, isa, workspace.get(), serial);
    for (size_t i = 0; i < 2; ++i) EXPECT_THAT(outs[i], testing::ElementsAreArray(product(*cases[i], isa)));
  }
}

TEST(QuantizedMatmul, NoRowsIsNothing) {
  const std::byte* weights[] = {nullptr, nullptr};
  const int64_t offsets[] = {0, 0, 0};
  MatmulProblem problem = {.shape = {16, 32, {}},
                           .num_experts = 2,
                           .weights = weights,
                           .offsets = offsets,
                           .x = {},
                           .out = nullptr,
                           .out_stride = 16};
  const ParallelFor never = [](int64_t, const std::function<void(int64_t)>&) { FAIL(); };
  matmul(problem, Isa::Reference, nullptr, never);
}

TEST(QuantizeRows, NearestWithTiesToEvenPaddingAndSums) {
  const int64_t k = 140;
  for (Isa isa : available()) {
    SCOPED_TRACE(isa_name(isa));
    std::vector<float> x(k, 0.5f);
    x[0] = 127, x[1] = 1.5f, x[2] = -2.5f, x[3] = -127, x[64] = 7, x[128] = -254, x[129] = 3;
    std::vector<int8_t> q(256, 99);
    std::vector<float> scales(2);
    std::vector<int16_t> sums(8);
    quantize_rows(x.data(), k, k, 0, 1, isa, {q.data(), scales.data(), sums.data()});
    EXPECT_THAT(scales, testing::ElementsAre(1, 2));
    EXPECT_THAT(std::vector(q.begin(), q.begin() + 5), testing::ElementsAre(127, 2, -2, -127, 0));
    EXPECT_THAT(std::vector(q.begin() + 128, q.begin() + 131), testing::ElementsAre(-127, 2, 0));
    EXPECT_THAT(std::vector(q.begin() + 140, q.end()), testing::Each(0));
    EXPECT_THAT(sums, testing::ElementsAre(0, 0, 7, 0, -125, 0, 0, 0));
    // The same from BF16.
    std::vector<uint16_t> bits;
    for (float value : x) bits.push_back(bf16_from_float(value));
    std::vector<int8_t> q_bf16(256, 99);
    quantize_rows(bits.data(), k, k, 0, 1, isa, {q_bf16.data(), scales.data(), sums.data()});
    EXPECT_EQ(q, q_bf16);
  }
}

/// Room for `rows` rows of k values.
struct Quantized {
  std::vector<int8_t> q;
  std::vector<float> scales;
  std::vector<int16_t> sums;
  Quantized(int64_t rows, int64_t k)
      : q(rows * row_layout(k).values, 99), scales(rows * row_layout(k).scales), sums(rows * row_layout(k).sums) {}
  QuantizedRows rows() { return {q.data(), scales.data(), sums.data()}; }
  bool operator==(const Quantized&) const = default;
};

TEST(QuantizeRows, EveryInstructionSetGivesTheSame) {
  std::mt19937 random(5);
  std::vector<float> x(3 * 300);
  for (float& value : x) value = std::normal_distribution<float>(0, 3)(random);
  const auto quantized = [&](Isa isa) {
    Quantized to(3, 290);
    quantize_rows(x.data(), 300, 290, 0, 3, isa, to.rows());
    return to;
  };
  const Quantized reference = quantized(Isa::Reference);
  const int64_t padded = row_layout(290).values;
  for (int64_t i = 0; i < 290; ++i) {
    const float scale = reference.scales[(padded + i) / kRowGroup];
    EXPECT_LE(std::abs(reference.q[padded + i] * scale - x[300 + i]), scale * 0.50001f) << i;
  }
  for (Isa isa : available()) EXPECT_EQ(quantized(isa), reference) << isa_name(isa);
}

TEST(QuantizeRows, OfTheGatedProductAreNearItAndTheSameOnEveryInstructionSet) {
  std::mt19937 random(6);
  const int64_t k = 290, stride = 600;
  std::vector<float> x(3 * stride);
  for (float& value : x) value = std::normal_distribution<float>(0, 4)(random);
  x[0] = -200, x[1] = 200, x[2] = -88, x[3] = 0;
  const auto quantized = [&](Isa isa) {
    Quantized to(3, k);
    quantize_swiglu_rows(x.data(), x.data() + 300, stride, k, 0, 3, isa, to.rows());
    return to;
  };
  const Quantized reference = quantized(Isa::Reference);
  const int64_t padded = row_layout(k).values;
  for (int64_t r = 0; r < 3; ++r) {
    for (int64_t i = 0; i < k; ++i) {
      const double gate = x[r * stride + i], exact = gate / (1 + std::exp(-gate)) * x[r * stride + 300 + i];
      const double scale = reference.scales[(r * padded + i) / kRowGroup];
      EXPECT_LE(std::abs(reference.q[r * padded + i] * scale - exact), scale * 0.5 + std::abs(exact) * 1e-6)
          << r << ", " << i;
    }
  }
  for (Isa isa : available()) EXPECT_EQ(quantized(isa), reference) << isa_name(isa);
}

TEST(QuantizeRows, ValuesThatAreNotFiniteReachTheResult) {
  for (Isa isa : available()) {
    for (float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::quiet_NaN(), 1e-37f}) {
      std::vector<float> x(32, 0.0f);
      x[5] = bad;
      Quantized to(1, 32);
      quantize_rows(x.data(), 32, 32, 0, 1, isa, to.rows());
      EXPECT_THAT(to.q, testing::Each(0));
      EXPECT_EQ(std::isnan(to.scales[0]), !(std::abs(bad) < 1)) << bad;
      EXPECT_THAT(to.sums, testing::Each(0));
    }
  }
}

TEST(PackWeights, RefusesWhatDoesNotFit) {
  Aligned packed(packed_layout({16, 32, {4, 32, false, true}}).total_bytes);
  std::vector<int8_t> q(16 * 32, 7), zeros(16, -8);
  std::vector<float> scales(16, 1);
  const auto pack = [&](const WeightFormat& format, const int8_t* with_zeros) {
    pack_weights({16, 32, format}, q.data(), scales.data(), with_zeros, packed.get());
  };
  EXPECT_NO_THROW(pack({4, 32, false, true}, zeros.data()));
  EXPECT_THROW(pack({4, 32, false, true}, nullptr), InternalError);
  EXPECT_THROW(pack({4, 64, false, true}, zeros.data()), InternalError);
  EXPECT_THROW(pack({5, 32, false, true}, zeros.data()), InternalError);
  EXPECT_THROW(pack({1, 32, false, true}, zeros.data()), InternalError);
  EXPECT_THROW(pack({3, 32, false, true}, zeros.data()), InternalError) << "7 needs 4 bits";
  q[17] = 8;
  EXPECT_THROW(pack({4, 32, false, true}, zeros.data()), InternalError);
}

TEST(PackWeights, PutsBytesWhereTheHeaderSays) {
  const WeightShape shape = {17, 40, {4, 32, false, true}};
  const PackedLayout layout = packed_layout(shape);
  std::vector<int8_t> q(17 * 40, -8), zeros(17 * 2, -8);
  std::vector<float> scales(17 * 2, 0.0f);
  q[2 * 40 + 13] = 3, q[16 * 40 + 34] = -2;  // k 13: byte 1 of the second pair's high half; k 34: of the second block
  scales[2 * 2 + 1] = 0.5f, zeros[3 * 2 + 1] = 7;
  Aligned packed(layout.total_bytes);
  pack_weights(shape, q.data(), scales.data(), zeros.data(), packed.get());
  const auto byte = [&](int64_t at) { return static_cast<int>(packed.get()[at]); };
  const int64_t tile = layout.tile_bytes;
  EXPECT_EQ(byte((1 * 16 + 2) * 4 + 1), 11 << 4);
  EXPECT_EQ(byte((1 * 16 + 2) * 4 + 2), 0);
  EXPECT_EQ(byte(tile + (4 * 16 + 0) * 4 + 2), 6);
  EXPECT_EQ(byte(layout.scales_offset + (16 + 2) * 2 + 1), 0x3F);
  EXPECT_EQ(byte(layout.scales_offset + (0 + 2) * 2 + 1), 0);
  EXPECT_EQ(byte(layout.zeros_offset + 16 + 3), 15);
  EXPECT_EQ(byte((5 * 16 + 3) * 4), 0xFF);         // padding of K has the zero point
  EXPECT_EQ(byte(tile + (0 * 16 + 1) * 4), 0x88);  // padding of N has the value 0
}

TEST(PackWeights, PutsTwoAndThreeBitsWhereTheHeaderSays) {
  for (const int bits : {2, 3}) {
    const int offset = 1 << (bits - 1);
    const WeightShape shape = {16, 64, {bits, 32, false, false}};
    std::vector<int8_t> q(16 * 64, static_cast<int8_t>(-offset));
    std::vector<float> scales(16 * 2, 1.0f);
    // Output 5: k 1 and 13 of the first 16; k 58 is the 26th of the second 32, the third of its quad.
    q[5 * 64 + 1] = 0, q[5 * 64 + 13] = static_cast<int8_t>(offset - 1),
               q[5 * 64 + 58] = static_cast<int8_t>(1 - offset);
    Aligned packed(packed_layout(shape).total_bytes);
    pack_weights(shape, q.data(), scales.data(), nullptr, packed.get());
    const auto byte = [&](int64_t run, int64_t j) { return static_cast<int>(packed.get()[run * 64 + 5 * 4 + j]); };
    EXPECT_EQ(byte(0, 1), (offset & 3) | 3 << 6);
    EXPECT_EQ(byte(0, 0), 0);
    EXPECT_EQ(byte(bits + 1, 2), 1 << 2);
    if (bits == 3) {
      EXPECT_EQ(byte(2, 1), 1 | 1 << 5);
      EXPECT_EQ(byte(5, 2), 0);
    }
  }
}

TEST(PackedLayout, SizesAreThoseOfTheHeader) {
  const PackedLayout int4 = packed_layout({33, 200, {4, 32, false, true}});
  EXPECT_EQ(int4.tiles, 3);
  EXPECT_EQ(int4.blocks, 7);
  EXPECT_EQ(int4.scales_offset, 224 * 8);
  EXPECT_EQ(int4.zeros_offset, 224 * 8 + 7 * 32);
  EXPECT_EQ(int4.tile_bytes, 2176);  // 1792 + 224 + 112, to whole 64
  EXPECT_EQ(int4.total_bytes, 3 * 2176);
  EXPECT_EQ(packed_layout({16, 256, {8, 128, true, false}}).total_bytes, 256 * 16 + 64);
  EXPECT_EQ(packed_layout({16, 256, {3, 32, false, true}}).total_bytes, 256 * 6 + 256 + 128);
  WeightShapes mixed({16, 256, {8, 128, true, false}}, 3);
  mixed.formats[1] = {2, 128, false, false};
  EXPECT_EQ(packed_bytes(mixed), 2 * (256 * 16 + 64) + 256 * 4 + 64);
}

TEST(Isa, NamesAreRead) {
  for (Isa isa : kIsas) EXPECT_EQ(isa_from_name(isa_name(isa)), isa);
  EXPECT_EQ(isa_from_name("avx"), std::nullopt);
  EXPECT_TRUE(isa_available(Isa::Reference));
  EXPECT_EQ(run_int8_dots(Isa::Reference, 10), 80);
}

TEST(Isa, TheEnvironmentMayNameIt) {
  ASSERT_EQ(::setenv("PUNA_ISA", "reference", 1), 0);
  EXPECT_EQ(chosen_isa(), Isa::Reference);
  ASSERT_EQ(::setenv("PUNA_ISA", "avx512_vni", 1), 0);
  EXPECT_THAT([] { chosen_isa(); }, testing::ThrowsMessage<Error>(testing::HasSubstr("did you mean 'avx512_vnni'?")));
  ASSERT_EQ(::unsetenv("PUNA_ISA"), 0);
  for (Isa isa : available()) EXPECT_LE(isa, chosen_isa());
}

}  // namespace
}  // namespace puna::kernels
