// Quantised matrices read back by the readers of stored checkpoints; the scales against scaling by the largest value.
#include "quant/matrix.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "checkpoint/stored_matrix.h"
#include "kernels/formats/floats.h"
#include "quant/scale_search.h"

namespace puna::quant {
namespace {

const char* const kNames[] = {"int2-g32",      "int2-g128-asym", "int3-g128", "int3-g32-asym", "int4-g32",  "int4-g128",
                              "int4-g32-asym", "int4-g128-asym", "int8",      "int8-g32",      "int8-g128", "fp8"};

// Heavy tails, some outliers, one row of zeros, one of tiny and one of one-sided values.
std::vector<float> weights(int64_t rows, int64_t cols, uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(static_cast<size_t>(rows * cols));
  for (float& v : out) {
    const float x = normal(random);
    v = 0.02f * x * (1 + 0.1f * x * x);
  }
  for (int64_t c = 0; c < cols; ++c) {
    out[static_cast<size_t>(c)] = 0;
    out[static_cast<size_t>(cols + c)] *= 1e-34f;
    out[static_cast<size_t>(2 * cols + c)] = std::abs(out[static_cast<size_t>(2 * cols + c)]) + 0.1f;
  }
  return out;
}

QuantisedMatrix quantise(const std::vector<float>& w, int64_t rows, const Format& format, DType scales = DType::BF16,
                         std::span<const float> importance = {}, int64_t threads = 1) {
  const int64_t cols = static_cast<int64_t>(w.size()) / rows;
  MatrixQuantiser quantiser(rows, cols, format, scales, importance);
  EXPECT_TRUE(quantiser.add(w.data(), rows, threads));
  return quantiser.finish();
}

std::vector<float> read_back(const QuantisedMatrix& q, int64_t rows, int64_t cols, const Format& format,
                             DType scale_dtype) {
  using checkpoint::Coding;
  const bool fp8 = format.code == Code::kFp8;
  checkpoint::Quantised stored{.coding = fp8                  ? Coding::kFp8E4M3
                                         : format.bits() == 2 ? Coding::kPacked2
                                         : format.bits() == 3 ? Coding::kPacked3
                                         : format.bits() == 4 ? Coding::kPacked4
                                                              : Coding::kPacked8,
                               .values = q.values,
                               .row_bytes = fp8 ? cols : words_per_row(format, cols) * 4,
                               .scales = q.scales,
                               .scale_dtype = scale_dtype,
                               .block_rows = 1,
                               .block_cols = format.group ? format.group : cols,
                               .zero_points = q.zero_points};
  std::vector<float> out(static_cast<size_t>(rows * cols));
  checkpoint::quantised_matrix(rows, cols, stored, nullptr)->read(0, rows, c10::ScalarType::Float, out.data());
  return out;
}

double squared_error(const std::vector<float>& a, const std::vector<float>& b, std::span<const float> weight = {}) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double e = static_cast<double>(a[i]) - b[i];
    sum += e * e * (weight.empty() ? 1 : weight[i % weight.size()]);
  }
  return sum;
}

TEST(Quantise, TheStoredReadersGiveWhatTheReportedErrorSays) {
  constexpr int64_t kRows = 37, kCols = 256;
  const auto w = weights(kRows, kCols);
  const double norm = squared_error(w, std::vector<float>(w.size()));
  for (const char* name : kNames) {
    SCOPED_TRACE(name);
    const Format format = parse_format(name, "test");
    for (DType scales : {DType::BF16, DType::F32}) {
      const auto q = quantise(w, kRows, format, scales);
      const double error = squared_error(read_back(q, kRows, kCols, format, scales), w);
      EXPECT_NEAR(error, q.squared_error, 1e-5 * q.squared_error);
      EXPECT_NEAR(norm, q.squared_norm, 1e-9 * norm);
      const double bound = format.code == Code::kFp8 ? 0.03 : format.bits() == 8 ? 0.015 : 2.4 / (1 << format.bits());
      EXPECT_LT(std::sqrt(error / norm), bound);
    }
  }
}

// What everybody else does: the largest value of a group becomes the largest integer.
double largest_value_error(const std::vector<float>& w, int64_t group, float high) {
  double sum = 0;
  for (size_t g = 0; g < w.size(); g += static_cast<size_t>(group)) {
    float largest = 0;
    for (int64_t i = 0; i < group; ++i) largest = std::max(largest, std::abs(w[g + i]));
    if (largest < 1e-30f) continue;
    const float scale = rounded_to(DType::BF16, largest / high);
    for (int64_t i = 0; i < group; ++i) {
      const float q = std::clamp(std::nearbyint(w[g + i] / scale), -high - 1, high);
      sum += std::pow(static_cast<double>(q) * scale - w[g + i], 2);
    }
  }
  return sum;
}

TEST(Quantise, SearchedScalesBeatTheLargestValueAndZeroPointsBeatNone) {
  constexpr int64_t kRows = 64, kCols = 256;
  const auto w = weights(kRows, kCols);
  const double g32 = quantise(w, kRows, {Code::kInt4, 32}).squared_error;
  const double g128 = quantise(w, kRows, {Code::kInt4, 128}).squared_error;
  EXPECT_LT(g32, 0.9 * largest_value_error(w, 32, 7));
  EXPECT_LT(g128, 0.8 * largest_value_error(w, 128, 7));
  EXPECT_LE(quantise(w, kRows, {Code::kInt8}).squared_error, largest_value_error(w, kCols, 127));
  EXPECT_LT(g32, g128);
  EXPECT_LT(quantise(w, kRows, {Code::kInt4, 32, false}).squared_error, g32);
  const double two = quantise(w, kRows, {Code::kInt2, 32}).squared_error;
  EXPECT_LT(two, 0.6 * largest_value_error(w, 32, 1));
  EXPECT_LT(quantise(w, kRows, {Code::kInt2, 32, false}).squared_error, 0.9 * two);
  EXPECT_LT(quantise(w, kRows, {Code::kInt3, 32}).squared_error, 0.8 * largest_value_error(w, 32, 3));
}

TEST(Quantise, ImportantColumnsAreKeptMoreExactly) {
  constexpr int64_t kRows = 16, kCols = 128;
  const auto w = weights(kRows, kCols);
  std::vector<float> importance(kCols, 1.0f);
  for (size_t c = 0; c < kCols; c += 8) importance[c] = 100;
  for (const char* name : {"int4-g32", "int4-g32-asym", "int8", "fp8"}) {
    SCOPED_TRACE(name);
    const Format format = parse_format(name, "test");
    const auto plain = read_back(quantise(w, kRows, format), kRows, kCols, format, DType::BF16);
    const auto weighted =
        read_back(quantise(w, kRows, format, DType::BF16, importance), kRows, kCols, format, DType::BF16);
    EXPECT_LT(squared_error(weighted, w, importance), squared_error(plain, w, importance));
  }
}

TEST(Quantise, ThreadsAndHandingOverInPiecesChangeNoBit) {
  constexpr int64_t kRows = 50, kCols = 128;
  const auto w = weights(kRows, kCols);
  for (const char* name : kNames) {
    SCOPED_TRACE(name);
    const Format format = parse_format(name, "test");
    const auto whole = quantise(w, kRows, format);
    MatrixQuantiser pieces(kRows, kCols, format, DType::BF16);
    for (int64_t r = 0; r < kRows; r += 19)
      EXPECT_TRUE(pieces.add(w.data() + r * kCols, std::min<int64_t>(19, kRows - r), 2));
    const auto other = pieces.finish();
    EXPECT_EQ(whole.values, other.values);
    EXPECT_EQ(whole.scales, other.scales);
    EXPECT_EQ(whole.zero_points, other.zero_points);
    EXPECT_EQ(whole.squared_error, other.squared_error);
  }
}

TEST(Quantise, ValuesThatAreNotFiniteAreSaid) {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    auto w = weights(4, 32);
    w[100] = bad;
    MatrixQuantiser quantiser(4, 32, {Code::kInt4, 32}, DType::BF16);
    EXPECT_FALSE(quantiser.add(w.data(), 4, 1));
  }
}

TEST(Fp8, EveryValueIsItselfAndBetweenTwoTheNearerIsTaken) {
  std::vector<float> values;
  for (int bits = 0; bits < 0x7F; ++bits) values.push_back(kernels::f8e4m3_to_float(static_cast<uint8_t>(bits)));
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(round_fp8(values[i]), values[i]);
    EXPECT_EQ(fp8_bits(values[i]), i);
    EXPECT_EQ(fp8_bits(-values[i]), i + 0x80);
    if (i + 1 == values.size()) continue;
    const float middle = (values[i] + values[i + 1]) / 2;
    EXPECT_EQ(round_fp8(middle), values[i + i % 2]) << middle;
    EXPECT_EQ(round_fp8(std::nextafter(middle, 1e9f)), values[i + 1]);
    EXPECT_EQ(round_fp8(std::nextafter(middle, 0.0f)), values[i]);
  }
  EXPECT_EQ(round_fp8(1e9f), 448);
  EXPECT_EQ(round_fp8(-1e9f), -448);
}

}  // namespace
}  // namespace puna::quant
