// Tiles of floats on AVX2: pairs of BF16 become FP32 by a shift and a mask, then FMAs.
#include "kernels/quantized/float_tile.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>

namespace puna::kernels {
namespace {

constexpr int kMostRows = 4;

/// The first and the second values of pairs.
struct Values {
  __m256 first, second;
  explicit Values(__m256i pairs)
      : first(_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16))),
        second(_mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(-65536)))) {}
};

inline __m256i pair_of(const uint16_t* x) {
  int32_t pair;
  std::memcpy(&pair, x, sizeof(pair));
  return _mm256_set1_epi32(pair);
}

inline __m256i load(const std::byte* from) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(from)); }

struct Bf16 {
  static constexpr int kStep = 128;  // bytes of 4 values of K
  /// Of 8 outputs: their first and second pairs.
  static inline void pairs(const std::byte* w, __m256i& first, __m256i& second) {
    first = load(w);
    second = load(w + 64);
  }
};

struct E4m3 {
  static constexpr int kStep = 64;
  /// Magnitudes from 8 are an exponent and a fraction as BF16 has them, but for 120 added to the exponent; those under
  /// 8 come from a table, and 127 is NaN.
  static inline void pairs(const std::byte* w, __m256i& first, __m256i& second) {
    const __m256i small_low =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, -128, -64, 0, 32, 64, 96, 0, 0, 0, 0, 0, 0, 0, 0));
    const __m256i small_high =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0x3B, 0x3B, 0x3B, 0x3C, 0x3C, 0x3C, 0x3C, 0, 0, 0, 0, 0, 0, 0, 0));
    const __m256i bytes = load(w), magnitude = _mm256_and_si256(bytes, _mm256_set1_epi8(127));
    const __m256i is_small = _mm256_cmpgt_epi8(_mm256_set1_epi8(8), magnitude);
    const __m256i is_nan = _mm256_cmpeq_epi8(magnitude, _mm256_set1_epi8(127));
    __m256i low = _mm256_and_si256(_mm256_slli_epi16(bytes, 4), _mm256_set1_epi8(-16));
    low = _mm256_blendv_epi8(low, _mm256_shuffle_epi8(small_low, magnitude), is_small);
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(7));
    high = _mm256_add_epi8(high, _mm256_set1_epi8(0x3C));
    high = _mm256_blendv_epi8(high, _mm256_shuffle_epi8(small_high, magnitude), is_small);
    high = _mm256_or_si256(high, _mm256_and_si256(is_nan, _mm256_set1_epi8(127)));
    high = _mm256_or_si256(high, _mm256_and_si256(bytes, _mm256_set1_epi8(-128)));
    first = _mm256_unpacklo_epi8(low, high);
    second = _mm256_unpackhi_epi8(low, high);
  }
};

template <int kRows>
inline void add_pairs(__m256* sums, __m256i pairs, const uint16_t* x) {
  const Values w(pairs);
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) {
    const Values v(pair_of(x + 2 * i));
    sums[i] = _mm256_fmadd_ps(w.first, v.first, _mm256_fmadd_ps(w.second, v.second, sums[i]));
  }
}

/// The 8 outputs from `first_output`.
template <typename Weights, int kRows>
void half_tile(const FloatTileProblem& p, int first_output, float* out) {
  const std::byte* w = p.weights + 4 * first_output;
  const uint16_t* x = p.x;
  __m256 even[kRows], odd[kRows];
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) even[i] = odd[i] = _mm256_setzero_ps();
  for (int64_t k = 0; k < p.padded_k; k += 4, w += Weights::kStep, x += 4 * kRows) {
    __m256i first, second;
    Weights::pairs(w, first, second);
    add_pairs<kRows>(even, first, x);
    add_pairs<kRows>(odd, second, x + 2 * kRows);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) {
    __m256 sum = _mm256_add_ps(even[i], odd[i]);
    if (p.scales) sum = _mm256_mul_ps(sum, _mm256_loadu_ps(p.scales + first_output));
    _mm256_storeu_ps(out + 16 * i + first_output, sum);
  }
}

/// For `rows` from 1 to kRows.
template <typename Weights, int kRows = kMostRows>
void tile(int rows, const FloatTileProblem& p, float* out) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return tile<Weights, kRows - 1>(rows, p, out);
  }
  half_tile<Weights, kRows>(p, 0, out);
  half_tile<Weights, kRows>(p, 8, out);
}

int64_t dots(int64_t rounds) {
  __m256 sums[10], weights = _mm256_set1_ps(3), x = _mm256_set1_ps(1);
#pragma GCC unroll 10
  for (int i = 0; i < 10; ++i) sums[i] = _mm256_setzero_ps();
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 10
    for (int i = 0; i < 10; ++i) {
      sums[i] = _mm256_fmadd_ps(weights, x, sums[i]);
      asm volatile("" : "+x"(sums[i]));
    }
  }
  return rounds * 10 * 8 * 2;
}

constexpr FloatTileKernels kKernels = {"avx2", kMostRows, tile<Bf16>, tile<E4m3>, dots};

}  // namespace

const FloatTileKernels* avx2_float_tile_kernels() { return &kKernels; }

}  // namespace puna::kernels
#else
namespace puna::kernels {
const FloatTileKernels* avx2_float_tile_kernels() { return nullptr; }
}  // namespace puna::kernels
#endif
