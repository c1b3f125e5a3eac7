// Tiles on AVX2: products of unsigned nibbles and signed bytes in pairs of 16 bits. Eight such pairs reach at most
// 8 * 2 * 15 * 128 = 30,720, so that nothing saturates; a byte of 8 bits is two nibbles, the upper one worth 16.
#include "kernels/quantized/tile.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/quantized/rows.inl"

#include <cstring>

namespace puna::kernels {
namespace {

inline __m256i four_bytes(const int8_t* x) {
  int32_t word;
  std::memcpy(&word, x, sizeof(word));
  return _mm256_set1_epi32(word);
}

/// Adds 32 values of K to the dots of 8 outputs.
template <int kBits, int kRows>
inline void add_32(const uint8_t* w, const int8_t* x, __m256i* dots) {
  const __m256i mask = _mm256_set1_epi8(15);
  __m256i low_sums[kRows], high_sums[kRows];
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) low_sums[i] = high_sums[i] = _mm256_setzero_si256();
  for (int step = 0; step < kBits; ++step, w += 64) {
    const __m256i bytes = _mm256_load_si256(reinterpret_cast<const __m256i*>(w));
    const __m256i low = _mm256_and_si256(bytes, mask);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      const int8_t* at = x + 4 * i;
      low_sums[i] = _mm256_add_epi16(low_sums[i], _mm256_maddubs_epi16(low, four_bytes(at)));
      __m256i& sum = kBits == 4 ? low_sums[i] : high_sums[i];
      sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(high, four_bytes(kBits == 4 ? at + 4 * kRows : at)));
    }
    x += (kBits == 4 ? 8 : 4) * kRows;
  }
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) {
    dots[i] = _mm256_add_epi32(dots[i], _mm256_madd_epi16(low_sums[i], _mm256_set1_epi16(1)));
    if (kBits == 8) dots[i] = _mm256_add_epi32(dots[i], _mm256_madd_epi16(high_sums[i], _mm256_set1_epi16(16)));
  }
}

/// The 8 outputs from `first`.
template <int kBits, int kRows>
void half_tile(const TileProblem& p, int first, float* out) {
  const uint8_t* w = p.quants + 4 * first;
  const int8_t* x = p.x;
  const float* row_scales = p.row_scales;
  __m256 sums[kRows], spans[kRows];
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) sums[i] = spans[i] = _mm256_setzero_ps();
  for (int64_t b = 0; b < p.blocks; ++b) {
    __m256i zeros = _mm256_setzero_si256();
    if (p.zeros) {
      zeros = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p.zeros + b * 16 + first)));
    }
    __m256i dots[kRows];
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      dots[i] = _mm256_set1_epi32(p.dot_starts[b * kRows + i]);
      if (p.zeros) dots[i] = _mm256_madd_epi16(zeros, dots[i]);
    }
    for (int64_t k = 0; k < p.group; k += 32, w += 64 * kBits, x += 32 * kRows) add_32<kBits, kRows>(w, x, dots);
    if (p.scales) {
      const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p.scales + b * 16 + first));
      const __m256 scales = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i) spans[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[i]), scales, spans[i]);
    } else {
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i) spans[i] = _mm256_add_ps(spans[i], _mm256_cvtepi32_ps(dots[i]));
    }
    if ((b + 1) * p.group % kRowGroup != 0 && b + 1 < p.blocks) continue;
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      sums[i] = _mm256_fmadd_ps(spans[i], _mm256_set1_ps(row_scales[i]), sums[i]);
      spans[i] = _mm256_setzero_ps();
    }
    row_scales += kRows;
  }
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) {
    if (p.channel_scales) sums[i] = _mm256_mul_ps(sums[i], _mm256_loadu_ps(p.channel_scales + first));
    _mm256_storeu_ps(out + 16 * i + first, sums[i]);
  }
}

template <int kBits, int kRows>
void tile_rows(const TileProblem& p, float* out) {
  half_tile<kBits, kRows>(p, 0, out);
  half_tile<kBits, kRows>(p, 8, out);
}

void tile(int bits, int rows, const TileProblem& p, float* out) {
  switch (rows) {
    case 4:
      return bits == 4 ? tile_rows<4, 4>(p, out) : tile_rows<8, 4>(p, out);
    case 3:
      return bits == 4 ? tile_rows<4, 3>(p, out) : tile_rows<8, 3>(p, out);
    case 2:
      return bits == 4 ? tile_rows<4, 2>(p, out) : tile_rows<8, 2>(p, out);
    default:
      return bits == 4 ? tile_rows<4, 1>(p, out) : tile_rows<8, 1>(p, out);
  }
}

int64_t dots(int64_t rounds) {
  __m256i sums[8], weights = _mm256_set1_epi8(3), x = _mm256_set1_epi8(1);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) sums[i] = _mm256_setzero_si256();
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      asm volatile("" : "+x"(weights));
      sums[i] = _mm256_add_epi16(sums[i], _mm256_maddubs_epi16(weights, x));
      asm volatile("" : "+x"(sums[i]));
    }
  }
  return rounds * 8 * 32 * 2;
}

constexpr TileKernels kKernels = {4,          tile, dots, widen, quantize<float>, quantize<uint16_t>, quantize_swiglu,
                                  swiglu_bf16};

}  // namespace

const TileKernels* avx2_tile_kernels() { return &kKernels; }

}  // namespace puna::kernels
#else
namespace puna::kernels {
const TileKernels* avx2_tile_kernels() { return nullptr; }
}  // namespace puna::kernels
#endif
