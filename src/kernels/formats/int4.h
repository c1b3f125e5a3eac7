// The int4 packing of compressed-tensors "pack-quantized" checkpoints (SPEC section 9).
#pragma once

#include <cstddef>
#include <cstdint>

namespace puna::kernels {

/// Words of 8 nibbles that hold `count` values.
constexpr int64_t int4_words(int64_t count) { return count / 8 + (count % 8 != 0); }

/// packed: int32 [rows, int4_words(cols)] row-major, unaligned allowed; nibble j (low bits first) of word w is
/// q[8w + j] + 8. q: int8 [rows, cols], values -8..7. The unused nibbles of a row's last word are ignored.
void unpack_int4(const std::byte* packed, int64_t rows, int64_t cols, int8_t* q);

/// The same, packed along rows (zero points): int32 [int4_words(rows), cols]; nibble j of word [w, c] is
/// q[8w + j, c] + 8. q: int8 [rows, cols].
void unpack_int4_along_rows(const std::byte* packed, int64_t rows, int64_t cols, int8_t* q);

}  // namespace puna::kernels
