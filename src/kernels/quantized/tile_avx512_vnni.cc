// Tiles on AVX-512 VNNI: unsigned weights in a register times four bytes of a row, broadcast from memory. The offset
// of the unsigned weights and the zero points go into the dots' start as integers, so that nothing saturates.
#include "kernels/quantized/tile.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <array>
#include <utility>

#include "kernels/quantized/rows.inl"

namespace puna::kernels {
namespace {

// How far ahead weights are asked for, into L2: there more reads can be in flight than into L1.
constexpr int kPrefetchBytes = 4096;
constexpr int kScalesAhead = 16;  // groups

using Word [[gnu::may_alias]] = int32_t;

/// dot += weights (unsigned) * four bytes of a row. In assembly because the compiler loads and copies ahead of need,
/// which costs registers and a tenth of the speed.
inline void add_dot(__m512i& dot, __m512i weights, const int8_t* x) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(dot) : "v"(weights), "m"(*reinterpret_cast<const Word*>(x)));
}

/// 8 values of K: low is the first four of each output, high the next.
template <int kBits>
inline const uint8_t* load_weights(const uint8_t* w, __m512i& low, __m512i& high) {
  _mm_prefetch(reinterpret_cast<const char*>(w + kPrefetchBytes), _MM_HINT_T1);
  const __m512i first = _mm512_load_si512(w);
  if constexpr (kBits == 4) {
    const __m512i mask = _mm512_set1_epi8(15);
    low = _mm512_and_si512(first, mask);
    high = _mm512_and_si512(_mm512_srli_epi16(first, 4), mask);
    return w + 64;
  }
  _mm_prefetch(reinterpret_cast<const char*>(w + kPrefetchBytes + 64), _MM_HINT_T1);
  low = first;
  high = _mm512_load_si512(w + 64);
  return w + 128;
}

/// The sums of a row's products are in `out`: there are not registers enough for dots, spans and them.
template <int kBits, int kRows, int kGroup, bool kZeros>
void tile_rows(const TileProblem& p, float* out) {
  constexpr int kChains = kRows <= 8 ? 2 : 1;  // few rows alone would wait for each dot's latency
  constexpr int64_t kSpan = kRowGroup / kGroup;
  const uint8_t* w = p.quants;
  const int8_t* x = p.x;
  const int32_t* starts = p.dot_starts;
  const float* row_scales = p.row_scales;
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) _mm512_storeu_ps(out + 16 * i, _mm512_setzero_ps());
  for (int b = 0; b < kScalesAhead; b += 2) {
    _mm_prefetch(reinterpret_cast<const char*>(p.next_scales + b * 16), _MM_HINT_T1);
  }
  for (int64_t b = 0; b < p.blocks;) {
    const int64_t end = b + kSpan < p.blocks ? b + kSpan : p.blocks;
    __m512 spans[kRows];
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) spans[i] = _mm512_setzero_ps();
    for (; b < end; ++b, starts += kRows) {
      __m512i dots[kChains][kRows];
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        dots[kChains - 1][i] = _mm512_setzero_si512();
        dots[0][i] = _mm512_set1_epi32(starts[i]);
      }
      if constexpr (kZeros) {
        const __m512i zeros = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p.zeros + b * 16)));
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i) {
          dots[0][i] = _mm512_dpwssd_epi32(_mm512_setzero_si512(), zeros, dots[0][i]);
        }
      }
      for (int k = 0; k < kGroup; k += 8, x += 8 * kRows) {
        __m512i low, high;
        w = load_weights<kBits>(w, low, high);
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i) add_dot(dots[0][i], low, x + 4 * i);
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i) add_dot(dots[kChains - 1][i], high, x + 4 * (kRows + i));
      }
      if constexpr (kChains == 2) {
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i) dots[0][i] = _mm512_add_epi32(dots[0][i], dots[1][i]);
      }
      if (p.scales) {
        _mm_prefetch(reinterpret_cast<const char*>(p.scales + (b + kScalesAhead) * 16), _MM_HINT_T1);
        const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p.scales + b * 16));
        const __m512 scales = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i) spans[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[0][i]), scales, spans[i]);
      } else {
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i) spans[i] = _mm512_add_ps(spans[i], _mm512_cvtepi32_ps(dots[0][i]));
      }
    }
    asm volatile("" ::: "memory");  // or the sums would be kept twice
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const __m512 sum = _mm512_fmadd_ps(spans[i], _mm512_set1_ps(row_scales[i]), _mm512_loadu_ps(out + 16 * i));
      _mm512_storeu_ps(out + 16 * i, sum);
    }
    row_scales += kRows;
  }
  if (p.channel_scales) {
    const __m512 scales = _mm512_loadu_ps(p.channel_scales);
    for (int i = 0; i < kRows; ++i)
      _mm512_storeu_ps(out + 16 * i, _mm512_mul_ps(_mm512_loadu_ps(out + 16 * i), scales));
  }
}

using TileFunction = void (*)(const TileProblem&, float*);

/// For 1, 2, ... rows.
template <int kBits, int kGroup, bool kZeros, int... kRows>
constexpr auto tile_table(std::integer_sequence<int, kRows...>) {
  return std::array<TileFunction, sizeof...(kRows)>{tile_rows<kBits, kRows + 1, kGroup, kZeros>...};
}

constexpr int kMostRows = 12;  // as many sums and dots as there are registers
constexpr auto kCounts = std::make_integer_sequence<int, kMostRows>();
/// By 8 instead of 4 bits, groups of 128 instead of 32, zeros instead of none.
constexpr std::array<TileFunction, kMostRows> kTiles[2][2][2] = {
    {{tile_table<4, 32, false>(kCounts), tile_table<4, 32, true>(kCounts)},
     {tile_table<4, 128, false>(kCounts), tile_table<4, 128, true>(kCounts)}},
    {{tile_table<8, 32, false>(kCounts), tile_table<8, 32, true>(kCounts)},
     {tile_table<8, 128, false>(kCounts), tile_table<8, 128, true>(kCounts)}}};

void tile(int bits, int rows, const TileProblem& p, float* out) {
  kTiles[bits == 8][p.group == 128][p.zeros != nullptr][rows - 1](p, out);
}

int64_t dots(int64_t rounds) {
  __m512i sums[12], weights = _mm512_set1_epi8(3), x = _mm512_set1_epi8(1);
#pragma GCC unroll 16
  for (int i = 0; i < 12; ++i) sums[i] = _mm512_setzero_si512();
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < 12; ++i) {
      sums[i] = _mm512_dpbusd_epi32(sums[i], weights, x);
      asm volatile("" : "+v"(sums[i]));
    }
  }
  return rounds * 12 * 64 * 2;
}

constexpr TileKernels kKernels = {kMostRows,       tile,       dots, widen, quantize<float>, quantize<uint16_t>,
                                  quantize_swiglu, swiglu_bf16};

}  // namespace

const TileKernels* avx512_vnni_tile_kernels() { return &kKernels; }

}  // namespace puna::kernels
#else
namespace puna::kernels {
const TileKernels* avx512_vnni_tile_kernels() { return nullptr; }
}  // namespace puna::kernels
#endif
