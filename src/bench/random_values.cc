#include "bench/random_values.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

namespace puna::bench {
namespace {

constexpr double kNoise = 0.2;  // of an embedding's variance

/// Of integers from -most to most, each once of 2 * most + 2 times, 0 twice.
double deviation_to(double most) { return std::sqrt(most * (most + 1) * (2 * most + 1) / 3 / (2 * most + 2)); }

double deviation_of(quant::Code code) {
  switch (code) {
    case quant::Code::kInt4:
      return deviation_to(7);
    case quant::Code::kInt8:
      return deviation_to(127);
    default: {  // E4M3: each sign and magnitude alike, the largest for what is no number too
      double sum = 0;
      for (int bits = 0; bits < 128; ++bits) {
        const int exponent = std::min(bits, 126) >> 3, mantissa = std::min(bits, 126) & 7;
        const double value = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
        sum += value * value;
      }
      return std::sqrt(sum / 128);
    }
  }
}

/// Routed experts are stored [E, in, out], linears [out, in].
int64_t inputs_of(const arch::ParamRow& row) {
  return row.kind == arch::ParamKind::kRoutedExperts ? row.shape[1] : row.shape.back();
}

}  // namespace

uint16_t bf16(double value) {
  const auto bits = std::bit_cast<uint32_t>(static_cast<float>(value));
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

uint64_t without_least(uint64_t random, int bits) {
  uint64_t any = random;  // in the lowest bit of each: whether it is not 0
  for (int shift = bits / 2; shift > 0; shift /= 2) any |= any >> shift;
  const uint64_t lowest = bits == 4 ? 0x1111111111111111U : 0x0101010101010101U;
  return random | (~any & lowest) << (bits - 1);
}

void make_numbers(std::span<std::byte> e4m3) {
  for (std::byte& byte : e4m3)
    if ((byte & std::byte{0x7f}) == std::byte{0x7f}) byte ^= std::byte{1};
}

double scale_of(quant::Code code, int64_t in) { return 1 / (deviation_of(code) * std::sqrt(static_cast<double>(in))); }

KeptValues::KeptValues(const arch::ParamRow& row, const RoutingCodes& codes, int64_t num_layers, uint64_t seed)
    : row_(row), codes_(codes), size_(std::sqrt(static_cast<double>(num_layers))), random_(seed) {
  std::normal_distribution<float> normal;
  std::mt19937_64 source(1);
  for (float& value : normals_) value = normal(source);
}

float KeptValues::noise() {
  if (bits_left_ == 0) bits_ = random_(), bits_left_ = 5;
  const float value = normals_[bits_ % normals_.size()];
  bits_ >>= 12, --bits_left_;
  return value;
}

void KeptValues::next(std::span<uint16_t> piece) {
  if (row_.kind == arch::ParamKind::kNorm) {
    std::ranges::fill(piece, bf16(1));
  } else if (row_.kind == arch::ParamKind::kEmbedding) {
    embedding(piece);
  } else if (row_.kind == arch::ParamKind::kRouter && codes_.groups() > 0) {
    router(piece);
  } else {
    const double scale = 1 / std::sqrt(static_cast<double>(inputs_of(row_)));
    std::array<uint16_t, std::tuple_size_v<decltype(normals_)>> table{};
    for (size_t i = 0; i < table.size(); ++i) table[i] = bf16(normals_[i] * scale);
    for (size_t i = 0; i < piece.size();) {
      uint64_t bits = random_();
      for (int j = 0; j < 5 && i < piece.size(); ++j, bits >>= 12) piece[i++] = table[bits % table.size()];
    }
  }
  done_ += std::ssize(piece);
}

void KeptValues::embedding(std::span<uint16_t> piece) {
  const int64_t width = row_.shape.back(), groups = codes_.groups(), end = done_ + std::ssize(piece);
  const auto noise_size = static_cast<float>(size_ * std::sqrt(groups > 0 ? kNoise : 1));
  const auto code_size =
      static_cast<float>(size_ * std::sqrt((1 - kNoise) / static_cast<double>(std::max<int64_t>(1, groups))));
  std::vector<float> sum(static_cast<size_t>(width));
  for (int64_t at = done_; at < end;) {
    const int64_t token = at / width, begin = at % width, count = std::min(width - begin, end - at);
    std::ranges::fill(sum, 0.0F);
    for (int64_t g = 0; g < groups; ++g) {
      const std::span<const float> code = codes_.code(g, codes_.digit(token, g));
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += code[i];
    }
    for (int64_t i = 0; i < count; ++i)
      piece[static_cast<size_t>(at - done_ + i)] =
          bf16(sum[static_cast<size_t>(begin + i)] * code_size + noise() * noise_size);
    at += count;
  }
}

void KeptValues::router(std::span<uint16_t> piece) {
  const int64_t width = row_.shape.back();
  const double scale = 1 / std::sqrt(static_cast<double>(width));
  for (size_t i = 0; i < piece.size(); ++i) {
    const int64_t at = done_ + static_cast<int64_t>(i);
    piece[i] = bf16(codes_.router_row(row_.layer, at / width)[static_cast<size_t>(at % width)] * scale);
  }
}

}  // namespace puna::bench
