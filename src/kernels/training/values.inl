// Loading, storing, sums and exponentials that all kernels use.

inline float wide(float x) { return x; }
inline double wide(double x) { return x; }
inline float wide(Bf16 x) { return __builtin_bit_cast(float, static_cast<uint32_t>(x.bits) << 16); }

inline void put(float& to, float x) { to = x; }
inline void put(double& to, double x) { to = x; }
inline void put(Bf16& to, float x) {
  const auto bits = __builtin_bit_cast(uint32_t, x);
  const uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  to.bits = static_cast<uint16_t>(x != x ? 0x7FC0 : rounded);
}

// As storing and loading again.
inline float rounded(float x, float) { return x; }
inline double rounded(double x, double) { return x; }
inline float rounded(float x, Bf16) {
  Bf16 stored;
  put(stored, x);
  return wide(stored);
}

constexpr int64_t kLanes = 16;  // partial sums of a row

template <typename W>
inline W sum_of_lanes(const W* lanes) {
  W half[8];
  for (int i = 0; i < 8; ++i) half[i] = lanes[i] + lanes[i + 8];
  return ((half[0] + half[4]) + (half[1] + half[5])) + ((half[2] + half[6]) + (half[3] + half[7]));
}

// sum of f(i) over i < n, in kLanes partial sums.
template <typename W, typename F>
inline __attribute__((always_inline)) W sum_over(int64_t n, const F& f) {
  W lanes[kLanes] = {};
  const int64_t whole = n / kLanes * kLanes;
  for (int64_t c = 0; c < whole; c += kLanes)
    for (int64_t i = 0; i < kLanes; ++i) lanes[i] += f(c + i);
  for (int64_t c = whole; c < n; ++c) lanes[c - whole] += f(c);
  return sum_of_lanes(lanes);
}

inline double exp_of(double x) { return __builtin_exp(x); }

// e^x to 2 units in the last place: Cody and Waite's reduction, then a polynomial on [-ln2/2, ln2/2]. Below -87: 0.
inline float exp_of(float x) {
  const float clamped = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
  const float shifted = clamped * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the sum's low bits are the rounded integer
  const float n = shifted - 12582912.0f;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const auto power = __builtin_bit_cast(float, (static_cast<int32_t>(n) + 127) << 23);
  return x < -87.0f ? 0.0f : p * power;
}
