// src/quant: weights to fewer bits: the scales of one matrix, rules for which weights get which format, calibration on
// a text, a model written tensor by tensor in compressed-tensors layout or as GGUF, and what that did to its weights.
// It reads models through checkpoint and never computes with quantised weights: that is kernels' work.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace puna::quant {

enum class Code { kKeep, kBf16, kInt2, kInt3, kInt4, kInt8, kFp8, kQ8_0, kQ4_0, kQ4_K };

/// How one matrix [out, in] is to be stored. kKeep: as the source has it, in its own float type.
struct Format {
  Code code = Code::kKeep;
  int64_t group = 0;  // columns that share a scale, of GGUF a block; 0: the whole row (one scale per output channel)
  bool symmetric = true;

  bool quantised() const { return code != Code::kKeep && code != Code::kBf16; }
  /// Of integers that the kernels multiply; else 0.
  int bits() const {
    return code == Code::kInt2 ? 2 : code == Code::kInt3 ? 3 : code == Code::kInt4 ? 4 : code == Code::kInt8 ? 8 : 0;
  }
  /// Whether this is one of GGUF's blocks, which compressed-tensors does not have.
  bool gguf() const { return code == Code::kQ8_0 || code == Code::kQ4_0 || code == Code::kQ4_K; }
  /// Whether rows of `cols` columns are whole groups, as the readers of the format want.
  bool fits(int64_t cols) const { return group == 0 || cols % group == 0; }
  bool operator==(const Format&) const = default;
};

/// "keep", "bf16", "int4-g32", "int4-g128", "int4-g32-asym", "int4-g128-asym", the same with int2 and int3, "int8",
/// "int8-g32", "int8-g128", "fp8"; GGUF's "q8_0", "q4_0", "q4_k".
std::string format_name(const Format& format);
/// Throws Error that names the nearest format.
Format parse_format(std::string_view name, std::string_view where);

}  // namespace puna::quant
