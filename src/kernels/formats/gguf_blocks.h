// src/kernels: raw-pointer compute without LibTorch. It takes pointers and sizes that its callers have checked; it
// knows nothing of tensors, files or models. formats/: stored bits to numbers.
//
// GGUF block layouts (little-endian; d, dmin are binary16 scales), as ggml defines them; QK = elements per block:
//   Q4_0 32: d, 16 bytes: element i is the low nibble of byte i, element i+16 the high one; d * (q - 8)
//   Q8_0 32: d, 32 int8; d * q
//   Q4_K 256: d, dmin, 12 bytes of 8 six-bit (scale, min) pairs, 128 bytes of nibbles; d * scale * q - dmin * min
//   Q5_K 256: as Q4_K, with 32 bytes of fifth bits before the nibbles
//   Q6_K 256: 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 int8 scales, d; d * scale * (q - 32)
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace puna::kernels {

/// True for the dtypes that dequantize_blocks() knows: all GGUF blocks, F64, F32, F16, BF16, F8E4M3 and F8E5M2.
bool can_dequantize(DType dtype);

/// Writes `elements` floats, also of the plain types, so that a reader of files needs no second way. `src` needs no
/// alignment and holds dtype_bytes(dtype, elements) bytes; `elements` is a multiple of the block. Products are rounded
/// to float in ggml's order, so results equal its bit for bit; infinite or NaN scales propagate. Bound: bytes read plus
/// 4 bytes written an element.
void dequantize_blocks(DType dtype, const std::byte* src, int64_t elements, float* dst);

}  // namespace puna::kernels
