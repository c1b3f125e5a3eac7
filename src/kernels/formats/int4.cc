#include "kernels/formats/int4.h"

#include <cstring>

namespace puna::kernels {
namespace {

uint32_t load_word(const std::byte* packed, int64_t word) {
  uint32_t value;
  std::memcpy(&value, packed + word * 4, sizeof(value));
  return value;
}

int8_t nibble(uint32_t word, int64_t index) {
  return static_cast<int8_t>(static_cast<int>(word >> (4 * index) & 15) - 8);
}

}  // namespace

void unpack_int4(const std::byte* packed, int64_t rows, int64_t cols, int8_t* q) {
  const int64_t words = int4_words(cols);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) q[r * cols + c] = nibble(load_word(packed, r * words + c / 8), c % 8);
}

void unpack_int4_along_rows(const std::byte* packed, int64_t rows, int64_t cols, int8_t* q) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) q[r * cols + c] = nibble(load_word(packed, r / 8 * cols + c), r % 8);
}

}  // namespace puna::kernels
