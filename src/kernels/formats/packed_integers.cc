#include "kernels/formats/packed_integers.h"

#include <cstring>

#include "base/error.h"

namespace puna::kernels {
namespace {

uint32_t load_word(const std::byte* at) {
  uint32_t value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

template <int kBits>
int8_t value_at(const std::byte* words, int64_t stride, int64_t index) {
  const int64_t word = index / 32 * kBits + index % 32 * kBits / 32;
  const int shift = static_cast<int>(index % 32 * kBits % 32);
  uint32_t bits = load_word(words + word * stride * 4) >> shift;
  if (32 % kBits != 0 && shift + kBits > 32) bits |= load_word(words + (word + 1) * stride * 4) << (32 - shift);
  return static_cast<int8_t>(static_cast<int>(bits & ((1U << kBits) - 1)) - (1 << (kBits - 1)));
}

/// f.operator()<bits>().
template <typename F>
auto with_bits(int bits, F f) {
  switch (bits) {
    case 2:
      return f.template operator()<2>();
    case 3:
      return f.template operator()<3>();
    case 4:
      return f.template operator()<4>();
    default:
      PUNA_CHECK(bits == 8, "integers of {} bits", bits);
      return f.template operator()<8>();
  }
}

}  // namespace

int8_t packed_integer(const std::byte* words, int64_t stride, int bits, int64_t index) {
  return with_bits(bits, [&]<int kBits>() { return value_at<kBits>(words, stride, index); });
}

void unpack_integers(const std::byte* packed, int bits, int64_t rows, int64_t cols, int8_t* q) {
  const int64_t words = packed_words(bits, cols);
  with_bits(bits, [&]<int kBits>() {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) q[r * cols + c] = value_at<kBits>(packed + r * words * 4, 1, c);
  });
}

}  // namespace puna::kernels
