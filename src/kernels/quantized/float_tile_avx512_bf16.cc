// Tiles of floats on AVX-512 BF16: a pair of weights of each output times a pair of a row, broadcast from memory.
#include "kernels/quantized/float_tile.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace puna::kernels {
namespace {

// How far ahead weights are asked for, into L2: there more reads can be in flight than into L1.
constexpr int kPrefetchBytes = 4096;
constexpr int kMostRows = 12;  // two chains each, and registers for weights and tables

using Pair [[gnu::may_alias]] = int32_t;

/// sum += two weights of each output times two values of a row. In assembly because the compiler loads and copies
/// ahead of need, which costs registers.
inline void add_dot(__m512& sum, __m512i weights, const uint16_t* x) {
  asm("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(weights), "m"(*reinterpret_cast<const Pair*>(x)));
}

/// Upper and lower bytes of the BF16 of each magnitude of E4M3.
struct Table {
  alignas(64) uint8_t low[128], high[128];
};

constexpr Table make_table() {
  Table table = {};
  for (int magnitude = 0; magnitude < 128; ++magnitude) {
    int bits = (magnitude << 4) + (120 << 7);
    if (magnitude < 8) {  // magnitude * 2^-9, without an implied bit
      int exponent = 127 - 9, fraction = magnitude << 7;
      for (; fraction >= 256; fraction /= 2) ++exponent;
      bits = magnitude == 0 ? 0 : exponent << 7 | (fraction & 127);
    }
    if (magnitude == 127) bits = 0x7FC0;
    table.low[magnitude] = static_cast<uint8_t>(bits);
    table.high[magnitude] = static_cast<uint8_t>(bits >> 8);
  }
  return table;
}

constexpr Table kTable = make_table();

struct Bf16 {
  /// 4 values of K: the first pair of each output, and the second.
  inline const std::byte* load(const std::byte* w, __m512i& first, __m512i& second) const {
    _mm_prefetch(reinterpret_cast<const char*>(w + kPrefetchBytes), _MM_HINT_T1);
    _mm_prefetch(reinterpret_cast<const char*>(w + kPrefetchBytes + 64), _MM_HINT_T1);
    first = _mm512_load_si512(w);
    second = _mm512_load_si512(w + 64);
    return w + 128;
  }
};

struct E4m3 {
  __m512i low[2] = {_mm512_load_si512(kTable.low), _mm512_load_si512(kTable.low + 64)};
  __m512i high[2] = {_mm512_load_si512(kTable.high), _mm512_load_si512(kTable.high + 64)};
  __m512i sign = _mm512_set1_epi8(-128);

  inline const std::byte* load(const std::byte* w, __m512i& first, __m512i& second) const {
    _mm_prefetch(reinterpret_cast<const char*>(w + kPrefetchBytes), _MM_HINT_T1);
    const __m512i bytes = _mm512_load_si512(w);
    const __m512i lower = _mm512_permutex2var_epi8(low[0], bytes, low[1]);
    const __m512i magnitude = _mm512_permutex2var_epi8(high[0], bytes, high[1]);
    const __m512i upper = _mm512_ternarylogic_epi64(magnitude, bytes, sign, 0xF8);  // magnitude | (bytes & sign)
    first = _mm512_unpacklo_epi8(lower, upper);
    second = _mm512_unpackhi_epi8(lower, upper);
    return w + 64;
  }
};

template <typename Weights, int kRows>
void tile_rows(const FloatTileProblem& p, float* out) {
  const Weights weights;
  const std::byte* w = p.weights;
  const uint16_t* x = p.x;
  __m512 chains[2][kRows];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) chains[0][i] = chains[1][i] = _mm512_setzero_ps();
  for (int64_t k = 0; k < p.padded_k; k += 4, x += 4 * kRows) {
    __m512i first, second;
    w = weights.load(w, first, second);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) add_dot(chains[0][i], first, x + 2 * i);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) add_dot(chains[1][i], second, x + 2 * (kRows + i));
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    __m512 sum = _mm512_add_ps(chains[0][i], chains[1][i]);
    if (p.scales) sum = _mm512_mul_ps(sum, _mm512_loadu_ps(p.scales));
    _mm512_storeu_ps(out + 16 * i, sum);
  }
}

/// For `rows` from 1 to kRows.
template <typename Weights, int kRows = kMostRows>
void tile(int rows, const FloatTileProblem& p, float* out) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return tile<Weights, kRows - 1>(rows, p, out);
  }
  tile_rows<Weights, kRows>(p, out);
}

int64_t dots(int64_t rounds) {
  const uint16_t x[2] = {0x3F80, 0x3F80};
  const __m512i weights = _mm512_set1_epi16(0x3F80);
  __m512 sums[kMostRows];
#pragma GCC unroll 16
  for (int i = 0; i < kMostRows; ++i) sums[i] = _mm512_setzero_ps();
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kMostRows; ++i) {
      add_dot(sums[i], weights, x);
      asm volatile("" : "+v"(sums[i]));
    }
  }
  return rounds * kMostRows * 32 * 2;
}

constexpr FloatTileKernels kKernels = {"avx512_bf16", kMostRows, tile<Bf16>, tile<E4m3>, dots};

}  // namespace

const FloatTileKernels* avx512_bf16_float_tile_kernels() { return &kKernels; }

}  // namespace puna::kernels
#else
namespace puna::kernels {
const FloatTileKernels* avx512_bf16_float_tile_kernels() { return nullptr; }
}  // namespace puna::kernels
#endif
