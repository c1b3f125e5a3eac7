// Attention on AVX-512: INT8 by dots of bytes, BF16 by its own dots where the instructions are there, else widened.

using Floats = __m512;
using Word [[gnu::may_alias]] = uint32_t;
constexpr int kLanes = 16;
constexpr int kSums = 24;
constexpr int kDotRows = 12, kWeighRows = 6, kColumns = 4;

inline Floats load(const float* from) { return _mm512_loadu_ps(from); }
inline void store(float* to, Floats x) { _mm512_storeu_ps(to, x); }
inline Floats set1(float x) { return _mm512_set1_ps(x); }
inline Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
inline Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
/// A NaN in x, not in the bound, is kept.
inline Floats max_or_nan(Floats bound, Floats x) { return _mm512_max_ps(bound, x); }
inline Floats min_or_nan(Floats bound, Floats x) { return _mm512_min_ps(bound, x); }
inline float first_of(Floats x) { return _mm512_cvtss_f32(x); }
inline float max_of(Floats x) { return _mm512_reduce_max_ps(x); }
inline float sum_of(Floats x) { return _mm512_reduce_add_ps(x); }

/// Lanes from `first` to `last` of x, the others of `otherwise`.
inline Floats keep(Floats x, int first, int last, Floats otherwise) {
  const unsigned inside = (2u << last) - (1u << first);
  return _mm512_mask_blend_ps(static_cast<__mmask16>(inside), otherwise, x);
}

/// 2^x for x of at most 0, or NaN.
inline Floats exp2_of(Floats x) {
  x = max_or_nan(set1(-200), x);
  const Floats whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), rest = sub(x, whole);
  Floats y = set1(kExp2[0]);
#pragma GCC unroll 8
  for (int i = 1; i < 7; ++i) y = fma(y, rest, set1(kExp2[i]));
  return _mm512_scalef_ps(y, whole);
}

inline void widen_bf16(const std::byte* from, Floats* to) {
  const __m512i words = _mm512_loadu_si512(from);
  to[0] = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
  to[1] = _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(static_cast<int>(0xFFFF0000))));
}

#include "kernels/attention/split.inl"

inline void copy_four(const void* from, void* to) { std::memcpy(to, from, 4); }

/// INT8 by dots of four bytes in INT32. A row's queries are multiples of its largest magnitude / 127, its weights of
/// the block's largest / 65535, as an upper and a lower byte.
struct ByteDots {
  static constexpr bool kInt8 = true, kMasksValues = false;
  static constexpr int kTogether = 4;
  static constexpr int64_t kTileWeightBytes = kTile;

  static int64_t peak(int64_t rounds) {
    __m512i sums[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) sums[i] = _mm512_setzero_si512();
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        sums[i] = _mm512_dpbusd_epi32(sums[i], _mm512_set1_epi8(3), _mm512_set1_epi8(1));
        asm volatile("" : "+v"(sums[i]));
      }
    }
    return rounds * 8 * kLanes * 4 * 2;
  }

  static float fill_panel(const float* row, int64_t r, int64_t rows, int64_t padded_width, std::byte* panel) {
    uint32_t largest_bits = 0;  // order of magnitudes, infinity and NaN last
    for (int64_t d = 0; d < padded_width; ++d) {
      uint32_t bits;
      copy_four(row + d, &bits);
      bits &= 0x7FFFFFFF;
      largest_bits = largest_bits > bits ? largest_bits : bits;
    }
    float largest;
    copy_four(&largest_bits, &largest);
    const bool finite = largest_bits < 0x7F800000, zero = !finite || largest < 1e-36f;
    const float inverse = zero ? 0 : 127 / largest;
    int8_t* to = reinterpret_cast<int8_t*>(panel + rows * 64) + 4 * r;
    int32_t sum = 0;
    for (int64_t d = 0; d < padded_width; ++d) {
      const float rounded = (zero ? 0 : row[d] * inverse) + 12582912.0f;  // 1.5 * 2^23: the integer in the lowest bits
      int32_t value;
      copy_four(&rounded, &value);
      value -= 0x4B400000;
      sum += value;
      to[d / 4 * 4 * rows + d % 4] = static_cast<int8_t>(value);
    }
    reinterpret_cast<int32_t*>(panel)[r] = -128 * sum;  // keys are stored as q + 128
    return finite ? (zero ? 0 : largest / 127) : __builtin_nanf("");
  }

  template <int kRows, int kTiles>
  static void dots(const std::byte* panel, const std::byte* const* keys, const std::byte* const* next,
                   int64_t padded_width, float* scores) {
    const std::byte* q = panel + kRows * 64;
    __m512i sums[kRows][kTiles];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int t = 0; t < kTiles; ++t) sums[r][t] = _mm512_set1_epi32(reinterpret_cast<const int32_t*>(panel)[r]);
    }
    for (int64_t at = 0; at < padded_width * kTile; at += 64, q += 4 * kRows) {
      __m512i k[kTiles];
#pragma GCC unroll 4
      for (int t = 0; t < kTiles; ++t) {
        if (next) ask_for(next[t] + at);
        k[t] = _mm512_loadu_si512(keys[t] + at);
      }
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const __m512i row = _mm512_set1_epi32(reinterpret_cast<const int32_t*>(q)[r]);
#pragma GCC unroll 4
        for (int t = 0; t < kTiles; ++t) sums[r][t] = _mm512_dpbusd_epi32(sums[r][t], k[t], row);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int t = 0; t < kTiles; ++t) {
        if (next && r == 0) ask_for(next[t] + padded_width * kTile);
        store(scores + r * kBlock + t * kTile, _mm512_cvtepi32_ps(sums[r][t]));
      }
    }
  }

  static Floats take_weight(Floats weight, Floats scaled, int i, std::byte*, float* scores) {
    store(scores + i * kLanes, scaled);
    return weight;
  }

  static float finish_weights(const float* scores, int tiles, std::byte* weights) {
    __m512i largest_bits = _mm512_setzero_si512();  // weights are not negative: their order, NaN last
    for (int t = 0; t < tiles; ++t) {
      largest_bits = _mm512_max_epu32(largest_bits, _mm512_castps_si512(load(scores + t * kTile)));
    }
    const uint32_t bits = _mm512_reduce_max_epu32(largest_bits);
    float largest;
    copy_four(&bits, &largest);
    const bool finite = bits < 0x7F800000, zero = !finite || largest < 1e-30f;
    const Floats inverse = set1(zero ? 0 : 65535 / largest);
    for (int t = 0; t < tiles; ++t) {
      const Floats multiple = zero ? set1(0) : mul(load(scores + t * kTile), inverse);
      const __m512i whole = _mm512_min_epi32(_mm512_cvtps_epi32(multiple), _mm512_set1_epi32(65535));
      __m128i* to = reinterpret_cast<__m128i*>(weights + t * kTile);
      _mm_storeu_si128(to, _mm512_cvtepi32_epi8(_mm512_srli_epi32(whole, 8)));
      _mm_storeu_si128(to + kBlockTiles, _mm512_cvtepi32_epi8(whole));
    }
    return finite ? (zero ? 0 : largest / 65535) : __builtin_nanf("");
  }

  /// sums += one of the weights' bytes times the values.
  template <int kRows, int kCount>
  static inline void add_bytes(const std::byte* weights, int tiles, const std::byte* const* values,
                               const std::byte* const* next, const Columns& columns, __m512i (&sums)[kRows][kCount]) {
    for (int t = 0; t < tiles; ++t) {
      int64_t at = columns.offset;
      for (int i = 0; i < kTile / kTogether; ++i, at += columns.stride, weights += 4) {
        __m512i v[kCount];
#pragma GCC unroll 4
        for (int c = 0; c < kCount; ++c) {
          if (next) ask_for(next[t] + at + c * 64);
          v[c] = _mm512_loadu_si512(values[t] + at + c * 64);
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const __m512i row = _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(weights + r * kWeightBytes));
#pragma GCC unroll 4
          for (int c = 0; c < kCount; ++c) sums[r][c] = _mm512_dpbusd_epi32(sums[r][c], row, v[c]);
        }
      }
    }
  }

  template <int kRows, int kCount>
  static void weigh(const std::byte* weights, const float* steps, int tiles, const std::byte* const* values,
                    const std::byte* const* next, const Columns& columns, float* to) {
    __m512i sums[kRows][kCount];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kCount; ++c) sums[r][c] = _mm512_setzero_si512();
    }
    add_bytes<kRows, kCount>(weights, tiles, values, next, columns, sums);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kCount; ++c) sums[r][c] = _mm512_slli_epi32(sums[r][c], 8);
    }
    add_bytes<kRows, kCount>(weights + kBlock, tiles, values, nullptr, columns, sums);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kCount; ++c) {
        float* at = to + r * columns.padded_width + c * kLanes;
        store(at, fma(_mm512_cvtepi32_ps(sums[r][c]), set1(steps[r]), load(at)));
      }
    }
  }
};

#ifdef __AVX512BF16__
/// BF16 by dots of two in FP32: queries and weights are rounded to BF16.
struct Bf16Dots {
  static constexpr bool kInt8 = false, kMasksValues = true;
  static constexpr int kTogether = 2;
  static constexpr int64_t kTileWeightBytes = kTile * 2;

  static __m512bh vector(const std::byte* from) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(from)); }
  static __m512bh pair(const std::byte* from) {
    return reinterpret_cast<__m512bh>(_mm512_set1_epi32(*reinterpret_cast<const int32_t*>(from)));
  }

  static int64_t peak(int64_t rounds) {
    const __m512bh three = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x4040));
    Floats sums[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) sums[i] = set1(0);
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        sums[i] = _mm512_dpbf16_ps(sums[i], three, three);
        asm volatile("" : "+v"(sums[i]));
      }
    }
    return rounds * 8 * kLanes * 2 * 2;
  }

  static float fill_panel(const float* row, int64_t r, int64_t rows, int64_t padded_width, std::byte* panel) {
    alignas(64) uint16_t rounded[kTile];
    for (int64_t d = 0; d < padded_width; d += kTile) {
      const __m256bh bits = _mm512_cvtneps_pbh(load(row + d));
      std::memcpy(rounded, &bits, sizeof(rounded));
      for (int64_t i = 0; i < kTile; i += 2) copy_four(rounded + i, panel + rows * 64 + ((d + i) / 2 * rows + r) * 4);
    }
    return 1;
  }

  template <int kRows, int kTiles>
  static void dots(const std::byte* panel, const std::byte* const* keys, const std::byte* const* next,
                   int64_t padded_width, float* scores) {
    const std::byte* q = panel + kRows * 64;
    Floats sums[kRows][kTiles];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int t = 0; t < kTiles; ++t) sums[r][t] = set1(0);
    }
    for (int64_t at = 0; at < padded_width * 32; at += 64, q += 4 * kRows) {
      __m512bh k[kTiles];
#pragma GCC unroll 4
      for (int t = 0; t < kTiles; ++t) {
        if (next) ask_for(next[t] + at);
        k[t] = vector(keys[t] + at);
      }
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const __m512bh row = pair(q + 4 * r);
#pragma GCC unroll 4
        for (int t = 0; t < kTiles; ++t) sums[r][t] = _mm512_dpbf16_ps(sums[r][t], k[t], row);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int t = 0; t < kTiles; ++t) store(scores + r * kBlock + t * kTile, sums[r][t]);
    }
  }

  static Floats take_weight(Floats weight, Floats, int i, std::byte* weights, float*) {
    const __m256bh rounded = _mm512_cvtneps_pbh(weight);
    std::memcpy(weights + i * kTile * 2, &rounded, sizeof(rounded));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(rounded)), 16));
  }
  static float finish_weights(const float*, int, std::byte*) { return 1; }

  template <int kRows, int kCount>
  static void weigh(const std::byte* weights, const float*, int tiles, const std::byte* const* values,
                    const std::byte* const* next, const Columns& columns, float* to) {
    Floats sums[kRows][kCount];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kCount; ++c) sums[r][c] = load(to + r * columns.padded_width + c * kLanes);
    }
    for (int t = 0; t < tiles; ++t) {
      int64_t at = columns.offset;
      for (int i = 0; i < kTile / kTogether; ++i, at += columns.stride, weights += 4) {
        __m512bh v[kCount];
#pragma GCC unroll 4
        for (int c = 0; c < kCount; ++c) {
          if (next) ask_for(next[t] + at + c * 64);
          v[c] = vector(values[t] + at + c * 64);
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const __m512bh row = pair(weights + r * kWeightBytes);
#pragma GCC unroll 4
          for (int c = 0; c < kCount; ++c) sums[r][c] = _mm512_dpbf16_ps(sums[r][c], v[c], row);
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kCount; ++c) store(to + r * columns.padded_width + c * kLanes, sums[r][c]);
    }
  }
};
#else
using Bf16Dots = Widened<CacheType::Bfloat16>;
#endif

constexpr AttentionKernels kKernels = kernels_of<Widened<CacheType::Float32>, Bf16Dots, ByteDots>();
