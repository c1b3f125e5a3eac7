// Products of BF16 and E4M3 weights: each instruction set against sums in FP64, and against the reference bit for bit
// where no number is under 2^-126, which AVX-512 BF16 takes as 0.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/error.h"
#include "base/parallel_for.h"
#include "kernels/formats/floats.h"
#include "kernels/quantized/float_tile.h"
#include "kernels/quantized/matmul.h"
#include "kernels/quantized/rounding.h"
#include "tests/kernels/aligned.h"

namespace puna::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
constexpr WeightFormat kFormats[] = {WeightFormat::bf16(), WeightFormat::e4m3()};

void serial(int64_t count, const std::function<void(int64_t)>& work) {
  for (int64_t i = 0; i < count; ++i) work(i);
}

std::vector<Isa> available() {
  std::vector<Isa> isas;
  for (Isa isa : kIsas) {
    if (isa_available(isa)) isas.push_back(isa);
  }
  return isas;
}

/// Weights [n, k] and rows [rows, k] as the bits that are multiplied.
struct Case {
  WeightShape shape;
  int64_t rows;
  std::vector<uint16_t> bf16;
  std::vector<uint8_t> e4m3;
  std::vector<float> scales;
  std::vector<uint16_t> x;
  Aligned packed;

  Case(const WeightShape& s, int64_t m, unsigned seed) : shape(s), rows(m), packed(packed_layout(s).total_bytes) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < s.n * s.k; ++i) {
      if (s.format.bits == 16) bf16.push_back(bf16_from_float(normal(random)));
      if (s.format.bits == 8) e4m3.push_back(static_cast<uint8_t>(random() % 127 | (random() & 128)));
    }
    for (int64_t n = 0; n < s.n && s.format.bits == 8; ++n) scales.push_back(std::exp2(normal(random)));
    for (int64_t i = 0; i < m * s.k; ++i) x.push_back(bf16_from_float(normal(random)));
    pack();
  }

  void pack() {
    const void* values = e4m3.empty() ? static_cast<const void*>(bf16.data()) : e4m3.data();
    pack_floats(shape, values, shape.k, 1, scales.empty() ? nullptr : scales.data(), packed.get());
  }

  float weight(int64_t n, int64_t k) const {
    const size_t at = static_cast<size_t>(n * shape.k + k);
    return e4m3.empty() ? bf16_to_float(bf16[at]) : f8e4m3_to_float(e4m3[at]);
  }

  /// Without roundings.
  double exact(int64_t r, int64_t n, double* magnitude) const {
    double sum = 0;
    const double scale = scales.empty() ? 1 : scales[n];
    for (int64_t k = 0; k < shape.k; ++k) {
      const double product = double{weight(n, k)} * bf16_to_float(x[r * shape.k + k]) * scale;
      sum += product;
      *magnitude += std::abs(product);
    }
    return sum;
  }
};

std::vector<float> product(Case& c, Isa isa, const ParallelFor& parallel = serial) {
  const std::byte* weights[] = {c.packed.get()};
  const int64_t offsets[] = {0, c.rows};
  std::vector<float> out(c.rows * c.shape.n, kNan);
  Aligned workspace(matmul_workspace_bytes(c.shape, c.rows));
  const MatmulProblem problem = {.shape = c.shape,
                                 .num_experts = 1,
                                 .weights = weights,
                                 .offsets = offsets,
                                 .x = {},
                                 .x_bf16 = c.x.data(),
                                 .out = out.data(),
                                 .out_stride = c.shape.n};
  matmul(problem, isa, workspace.get(), parallel);
  return out;
}

std::string describe(const Case& c, Isa isa) {
  return fmt::format("{}: {} rows, {} by {}, {} bits", float_kernel_name(isa), c.rows, c.shape.n, c.shape.k,
                     c.shape.format.bits);
}

TEST(FloatMatmul, EveryShapeIsTheReferenceBitForBitAndCloseToExact) {
  const std::pair<int64_t, int64_t> sizes[] = {{1, 1}, {16, 4}, {17, 31}, {33, 129}, {5, 262}, {64, 384}};
  for (const WeightFormat& format : kFormats) {
    for (const auto& [n, k] : sizes) {
      for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 25, 31}) {
        Case c({n, k, format}, rows, static_cast<unsigned>(n * 31 + k + rows));
        const std::vector<float> reference = product(c, Isa::Reference);
        for (int64_t i = 0; i < rows * n; ++i) {
          double magnitude = 0;
          const double expected = c.exact(i / n, i % n, &magnitude);
          // Each of the k FMAs, the sum of the chains and the scale round once.
          const double bound = static_cast<double>(k / 2 + 4) * 0x1p-24 * magnitude;
          ASSERT_LE(std::abs(reference[i] - expected), bound) << describe(c, Isa::Reference);
        }
        for (Isa isa : available())
          ASSERT_THAT(product(c, isa), testing::ElementsAreArray(reference)) << describe(c, isa);
      }
    }
  }
}

// Every code in every place of the layout, times 1.
TEST(FloatMatmul, EveryE4m3IsExactWhereverItLies) {
  const int64_t k = 8;
  for (int64_t at = 0; at < k; ++at) {
    Case c({256, k, WeightFormat::e4m3()}, 1, 1);
    std::fill(c.e4m3.begin(), c.e4m3.end(), uint8_t{0});
    std::fill(c.scales.begin(), c.scales.end(), 1.0f);
    std::fill(c.x.begin(), c.x.end(), bf16_from_float(1));
    for (int64_t n = 0; n < 256; ++n) c.e4m3[n * k + at] = static_cast<uint8_t>(n);
    c.pack();
    for (Isa isa : available()) {
      const std::vector<float> out = product(c, isa);
      for (int n = 0; n < 256; ++n) {
        const float expected = f8e4m3_to_float(static_cast<uint8_t>(n));
        if (std::isnan(expected))
          EXPECT_TRUE(std::isnan(out[n])) << describe(c, isa) << ", " << n;
        else
          EXPECT_EQ(out[n], expected) << describe(c, isa) << ", " << n << " at " << at;
      }
    }
  }
}

TEST(FloatMatmul, NumbersThatAreNoneOrTooLargeSpoilTheirOwnOutputsAlone) {
  for (const WeightFormat& format : kFormats) {
    Case c({20, 37, format}, 14, 2);
    const int64_t k = c.shape.k;
    c.x[1 * k + 36] = bf16_from_float(kNan), c.x[2 * k + 5] = bf16_from_float(kInfinity);
    for (int64_t i = 0; i < k; ++i) c.x[3 * k + i] = bf16_from_float(3e38f);
    if (format.bits == 16) c.bf16[7 * k + 3] = bf16_from_float(-kInfinity), c.bf16[8 * k + 9] = bf16_from_float(kNan);
    if (format.bits == 8) c.scales[7] = kInfinity, c.e4m3[8 * k + 9] = 0xFF, c.scales[9] = 3e38f;
    c.pack();
    const std::vector<float> reference = product(c, Isa::Reference);
    for (int64_t n = 0; n < 20; ++n) EXPECT_TRUE(std::isnan(reference[20 + n])) << n;
    for (int64_t r = 0; r < 14; ++r) EXPECT_TRUE(std::isnan(reference[r * 20 + 8])) << r;
    EXPECT_TRUE(std::isinf(reference[7])) << reference[7];
    EXPECT_TRUE(std::isinf(reference[2 * 20 + 1])) << reference[2 * 20 + 1];
    EXPECT_TRUE(std::isfinite(reference[0]) && std::isfinite(reference[13 * 20 + 19]));
    for (Isa isa : available()) {
      const std::vector<float> out = product(c, isa);
      for (size_t i = 0; i < out.size(); ++i)
        EXPECT_TRUE(out[i] == reference[i] || (std::isnan(out[i]) && std::isnan(reference[i])))
            << describe(c, isa) << " at " << i << ": " << out[i] << ", " << reference[i];
    }
  }
}

TEST(FloatMatmul, NumbersTooSmallForAvx512Bf16AreZeroThere) {
  Case c({16, 64, WeightFormat::bf16()}, 3, 4);
  for (uint16_t& bits : c.bf16) bits = static_cast<uint16_t>((bits & 0x807F) | 0x0080);  // 2^-126 to 2^-125
  for (int64_t i = 0; i < 64; ++i) c.x[i] = bf16_from_float(0x1p-3f);                    // products under 2^-126
  for (int64_t i = 0; i < 64; ++i) c.x[64 + i] &= 0x807F;                                // under 2^-126 themselves
  c.pack();
  const std::vector<float> reference = product(c, Isa::Reference);
  EXPECT_NE(reference[0], 0);
  for (Isa isa : available()) {
    const std::vector<float> out = product(c, isa);
    const bool exact = float_kernel_name(isa) != "avx512_bf16";
    // Each of 64 sums may lose what is under 2^-126.
    for (size_t i = 0; i < out.size(); ++i)
      EXPECT_NEAR(out[i], reference[i], exact ? 0 : 64 * 0x1p-126) << describe(c, isa) << " at " << i;
  }
}

TEST(FloatMatmul, ARowIsTheSameInAnyBatchAndOnAnyThreads) {
  for (const WeightFormat& format : kFormats) {
    // Wide enough that panels and tiles are cut into several work items.
    Case all({144, 5122, format}, 131, 7);
    const ParallelFor threads = [](int64_t count, const std::function<void(int64_t)>& work) {
      parallel_for(count, 3, work);
    };
    for (Isa isa : available()) {
      if (isa == Isa::Reference) continue;
      const std::vector<float> whole = product(all, isa);
      ASSERT_THAT(product(all, isa, threads), testing::ElementsAreArray(whole));
      for (int64_t row : {0, 12, 57, 128, 130}) {
        Case one({144, 5122, format}, 1, 7);
        one.x.assign(all.x.begin() + row * all.shape.k, all.x.begin() + (row + 1) * all.shape.k);
        const auto begin = whole.begin() + row * all.shape.n;
        ASSERT_THAT(product(one, isa), testing::ElementsAreArray(begin, begin + all.shape.n))
            << describe(all, isa) << ", row " << row;
      }
    }
  }
}

TEST(FloatMatmul, ExpertsTakeTheirRowsAndFactors) {
  for (const WeightFormat& format : kFormats) {
    const WeightShape shape = {37, 203, format};
    Case first(shape, 9, 3), second(shape, 9, 4);
    // An expert without rows may have no weights at all.
    const std::byte* weights[] = {first.packed.get(), nullptr, second.packed.get(), nullptr};
    const int64_t offsets[] = {0, 5, 5, 20, 20};
    std::vector<int32_t> index;
    std::vector<float> factors;
    for (int i = 0; i < 20; ++i) {
      index.push_back(i * 7 % 9);
      factors.push_back(0.25f + static_cast<float>(i));
    }
    second.x = first.x;
    const int64_t stride = shape.n + 3;
    for (Isa isa : available()) {
      const std::vector<float> with_first = product(first, isa), with_second = product(second, isa);
      std::vector<uint16_t> out(20 * stride, 0x1234);
      Aligned workspace(matmul_workspace_bytes(shape, 20));
      const MatmulProblem problem = {.shape = shape,
                                     .num_experts = 4,
                                     .weights = weights,
                                     .offsets = offsets,
                                     .x = {},
                                     .x_bf16 = first.x.data(),
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
          ASSERT_EQ(out[r * stride + n], expected) << describe(first, isa) << ", row " << r << " output " << n;
        }
      }
    }
  }
}

TEST(FloatMatmul, RunsBesideIntegers) {
  Case floats({37, 200, WeightFormat::e4m3()}, 21, 8);
  const WeightShape integers = {18, 32, {4, 32, false, false}};
  Aligned packed(packed_layout(integers).total_bytes);
  const std::vector<int8_t> q(18 * 32, 3);
  const std::vector<float> scales(18, 0.5f);
  pack_weights(integers, q.data(), scales.data(), nullptr, packed.get());
  std::vector<int8_t> row(32, 2);
  float row_scale = 1;
  int16_t sum = 64;
  const std::byte* weights[] = {floats.packed.get(), packed.get()};
  const int64_t of_floats[] = {0, 21}, of_integers[] = {0, 1};
  for (Isa isa : available()) {
    std::vector<float> a(21 * 37, kNan), b(18, kNan);
    const MatmulProblem problems[] = {{.shape = floats.shape,
                                       .num_experts = 1,
                                       .weights = weights,
                                       .offsets = of_floats,
                                       .x = {},
                                       .x_bf16 = floats.x.data(),
                                       .out = a.data(),
                                       .out_stride = 37},
                                      {.shape = integers,
                                       .num_experts = 1,
                                       .weights = weights + 1,
                                       .offsets = of_integers,
                                       .x = {row.data(), &row_scale, &sum},
                                       .out = b.data(),
                                       .out_stride = 18}};
    Aligned workspace(matmul_workspace_bytes(floats.shape, 21) + matmul_workspace_bytes(integers, 1));
    matmul(problems, isa, workspace.get(), serial);
    EXPECT_THAT(a, testing::ElementsAreArray(product(floats, isa)));
    EXPECT_THAT(b, testing::Each(3 * 2 * 32 * 0.5f));
  }
}

TEST(PackFloats, TakesWeightsThatLieByInputs) {
  for (const WeightFormat& format : kFormats) {
    Case c({21, 10, format}, 1, 5);
    std::vector<uint16_t> bf16(c.bf16.size());
    std::vector<uint8_t> e4m3(c.e4m3.size());
    for (int64_t n = 0; n < 21; ++n) {
      for (int64_t k = 0; k < 10; ++k) {
        if (!bf16.empty()) bf16[k * 21 + n] = c.bf16[n * 10 + k];
        if (!e4m3.empty()) e4m3[k * 21 + n] = c.e4m3[n * 10 + k];
      }
    }
    const int64_t bytes = packed_layout(c.shape).total_bytes;
    Aligned packed(bytes);
    const void* values = e4m3.empty() ? static_cast<const void*>(bf16.data()) : e4m3.data();
    pack_floats(c.shape, values, 1, 21, c.scales.empty() ? nullptr : c.scales.data(), packed.get());
    EXPECT_EQ(std::memcmp(packed.get(), c.packed.get(), static_cast<size_t>(bytes)), 0);
  }
}

TEST(UnpackFloats, GivesTheValuesBack) {
  for (const WeightFormat& format : kFormats) {
    Case c({21, 11, format}, 1, 5);
    std::vector<float> values(21 * 11);
    unpack_floats(c.shape, c.packed.get(), values.data());
    for (int64_t n = 0; n < 21; ++n) {
      for (int64_t k = 0; k < 11; ++k)
        EXPECT_EQ(values[n * 11 + k], c.weight(n, k) * (c.scales.empty() ? 1 : c.scales[n])) << n << ", " << k;
    }
  }
}

TEST(PackFloats, PutsBytesWhereTheHeaderSays) {
  const WeightShape shape = {17, 6, WeightFormat::e4m3()};
  std::vector<uint8_t> values(17 * 6);
  std::vector<float> scales(17, 0);
  values[9 * 6 + 3] = 0x41, values[16 * 6 + 4] = 0x42, scales[16] = 1;
  const PackedLayout layout = packed_layout(shape);
  Aligned packed(layout.total_bytes);
  pack_floats(shape, values.data(), 6, 1, scales.data(), packed.get());
  const auto byte = [&](int64_t at) { return static_cast<int>(packed.get()[at]); };
  EXPECT_EQ(byte(2 * 16 + 1 * 8 + 1 * 2 + 1), 0x41);
  EXPECT_EQ(byte(layout.tile_bytes + 64), 0x42);
  EXPECT_EQ(byte(layout.tile_bytes + layout.scales_offset + 3), 0x3F);
  std::vector<uint16_t> bits(17 * 6);
  bits[9 * 6 + 3] = 0x4142;
  Aligned wide(packed_layout({17, 6, WeightFormat::bf16()}).total_bytes);
  pack_floats({17, 6, WeightFormat::bf16()}, bits.data(), 6, 1, nullptr, wide.get());
  EXPECT_EQ(static_cast<int>(wide.get()[((1 * 16 + 9) * 2 + 1) * 2 + 1]), 0x41);
}

TEST(PackFloats, SizesAreThoseOfTheHeaderAndOthersAreRefused) {
  EXPECT_EQ(packed_layout({33, 201, WeightFormat::bf16()}).total_bytes, 3 * 204 * 32);
  EXPECT_EQ(packed_layout({33, 201, WeightFormat::e4m3()}).total_bytes, 3 * (204 * 16 + 64));
  EXPECT_EQ(matmul_workspace_bytes({33, 201, WeightFormat::bf16()}, 16), 16 * 204 * 2);
  EXPECT_THROW(packed_layout({16, 32, {.bits = 4, .floats = true}}), InternalError);
  EXPECT_THROW(packed_layout({16, 32, {.bits = 8, .floats = true}}), InternalError);
  const std::vector<uint8_t> values(16 * 4);
  Aligned packed(packed_layout({16, 4, WeightFormat::e4m3()}).total_bytes);
  EXPECT_THROW(pack_floats({16, 4, WeightFormat::e4m3()}, values.data(), 4, 1, nullptr, packed.get()), InternalError);
}

TEST(SwigluRows, EveryInstructionSetGivesTheSame) {
  std::mt19937 random(5);
  const int64_t k = 77, stride = 160;
  std::vector<float> values(3 * stride);
  for (float& value : values) value = std::normal_distribution<float>(0, 3)(random);
  values[0] = kNan, values[1] = kInfinity, values[2] = -kInfinity, values[3] = -200, values[80 + 4] = kNan;
  const auto rows_of = [&](Isa isa) {
    std::vector<uint16_t> out(3 * k, 0x1234);
    swiglu_rows(values.data(), values.data() + 80, stride, k, 0, 3, isa, out.data());
    return out;
  };
  const std::vector<uint16_t> reference = rows_of(Isa::Reference);
  for (int64_t i = 0; i < 3 * k; ++i) {
    const double gate = values[i / k * stride + i % k], up = values[i / k * stride + i % k + 80];
    const float got = bf16_to_float(reference[i]);
    if (std::isnan(gate) || std::isnan(up) || std::isinf(gate)) continue;
    EXPECT_NEAR(got, gate / (1 + std::exp(-gate)) * up, std::abs(got) * 0x1p-8 + 1e-30) << i;
  }
  EXPECT_TRUE(std::isnan(bf16_to_float(reference[0])) && std::isnan(bf16_to_float(reference[4])));
  EXPECT_TRUE(std::isinf(bf16_to_float(reference[1])));
  for (Isa isa : available()) EXPECT_EQ(rows_of(isa), reference) << isa_name(isa);
}

TEST(FloatKernels, HaveNames) {
  EXPECT_EQ(float_kernel_name(Isa::Reference), "reference");
  EXPECT_EQ(run_bf16_dots(Isa::Reference, 10), 80);
}

}  // namespace
}  // namespace puna::kernels
