// Integers as compressed-tensors' "pack-quantized" checkpoints hold them (SPEC section 9): one after another in int32
// words, low bits first, each with half of its range added. One of 3 bits may end in the next word.
#pragma once

#include <cstddef>
#include <cstdint>

namespace puna::kernels {

/// Words that hold `count` values of 2, 3, 4 or 8 bits.
constexpr int64_t packed_words(int bits, int64_t count) { return count / 32 * bits + (count % 32 * bits + 31) / 32; }

/// Value `index` of words that lie `stride` words apart, unaligned allowed: along the rows of int32 [words, stride],
/// as zero points are packed, or with 1 along a row.
int8_t packed_integer(const std::byte* words, int64_t stride, int bits, int64_t index);

/// packed: int32 [rows, packed_words(bits, cols)] row-major, unaligned allowed. q: int8 [rows, cols]. The bits of a
/// row's last word that no value has are ignored.
void unpack_integers(const std::byte* packed, int bits, int64_t rows, int64_t cols, int8_t* q);

}  // namespace puna::kernels
