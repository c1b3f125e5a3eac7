// The values of random models: weights that keep the deviation of what they multiply, and routing codes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>

#include "arch/parameters.h"
#include "bench/routing.h"
#include "quant/format.h"

namespace puna::bench {

uint16_t bf16(double value);

/// Random bits of integers stored as q + 2^(bits - 1), the least of which, whose opposite there is not, become 0: their
/// mean would be the same in every output, and grow from layer to layer until all tokens look alike.
uint64_t without_least(uint64_t random, int bits);

/// Random bits as E4M3: 0x7f and 0xff, which are no numbers, become the largest.
void make_numbers(std::span<std::byte> e4m3);

/// Of quantised values of such bits, or of random FP8 bits, so that a matrix of `in` inputs keeps the deviation of its
/// input.
double scale_of(quant::Code code, int64_t in);

/// A row that is kept, as BF16, in order: norms are 1, routers are codes, an embedding is codes and a fifth (of its
/// variance) noise, as large as what all layers add to it; the others are normal.
class KeptValues {
 public:
  /// `row` and `codes` must outlive it.
  KeptValues(const arch::ParamRow& row, const RoutingCodes& codes, int64_t num_layers, uint64_t seed);
  void next(std::span<uint16_t> piece);

 private:
  float noise();
  void embedding(std::span<uint16_t> piece);
  void router(std::span<uint16_t> piece);

  const arch::ParamRow& row_;
  const RoutingCodes& codes_;
  double size_;       // of the embedding's deviation
  int64_t done_ = 0;  // values
  std::mt19937_64 random_;
  uint64_t bits_ = 0;
  int bits_left_ = 0;
  std::array<float, 4096> normals_;
};

}  // namespace puna::bench
