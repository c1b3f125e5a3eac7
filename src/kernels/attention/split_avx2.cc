// Attention on AVX2: every type widened to FP32, nothing rounded but sums.
#include "kernels/attention/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>
#include <utility>

namespace puna::kernels {
namespace {

using Floats = __m256;
using Word [[gnu::may_alias]] = uint32_t;
constexpr int kLanes = 8;
constexpr int kSums = 8;
constexpr int kDotRows = 4, kWeighRows = 4, kColumns = 2;

inline Floats load(const float* from) { return _mm256_loadu_ps(from); }
inline void store(float* to, Floats x) { _mm256_storeu_ps(to, x); }
inline Floats set1(float x) { return _mm256_set1_ps(x); }
inline Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
inline Floats sub(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
inline Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
inline Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
/// A NaN in x, not in the bound, is kept.
inline Floats max_or_nan(Floats bound, Floats x) { return _mm256_max_ps(bound, x); }
inline Floats min_or_nan(Floats bound, Floats x) { return _mm256_min_ps(bound, x); }
inline float first_of(Floats x) { return _mm256_cvtss_f32(x); }

inline float max_of(Floats x) {
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

inline float sum_of(Floats x) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

/// Lanes from `first` to `last` of x, the others of `otherwise`.
inline Floats keep(Floats x, int first, int last, Floats otherwise) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i outside = _mm256_or_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(first), lane),
                                          _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(last)));
  return _mm256_blendv_ps(x, otherwise, _mm256_castsi256_ps(outside));
}

/// 2^x for x of at most 0, or NaN; 0 below the smallest normal number.
inline Floats exp2_of(Floats x) {
  x = max_or_nan(set1(-127), x);
  const Floats whole = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), rest = sub(x, whole);
  Floats y = set1(kExp2[0]);
#pragma GCC unroll 8
  for (int i = 1; i < 7; ++i) y = fma(y, rest, set1(kExp2[i]));
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
  y = mul(y, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
  return _mm256_andnot_ps(_mm256_cmp_ps(x, set1(-126), _CMP_LT_OQ), y);
}

inline void widen_bf16(const std::byte* from, Floats* to) {
  const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  to[0] = _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
  to[1] = _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(static_cast<int>(0xFFFF0000))));
}

/// Keys are stored as bytes of q + 128.
template <bool kKeys>
inline void widen_bytes(const std::byte* from, Floats* to) {
  __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  if constexpr (kKeys) words = _mm256_xor_si256(words, _mm256_set1_epi8(-128));
  to[0] = _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(words, 24), 24));
  to[1] = _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(words, 16), 24));
  to[2] = _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(words, 8), 24));
  to[3] = _mm256_cvtepi32_ps(_mm256_srai_epi32(words, 24));
}

#include "kernels/attention/split.inl"

constexpr AttentionKernels kKernels =
    kernels_of<Widened<CacheType::Float32>, Widened<CacheType::Bfloat16>, Widened<CacheType::Int8>>();

}  // namespace

const AttentionKernels* avx2_attention_kernels() { return &kKernels; }

}  // namespace puna::kernels
#else
namespace puna::kernels {
const AttentionKernels* avx2_attention_kernels() { return nullptr; }
}  // namespace puna::kernels
#endif
