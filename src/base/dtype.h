// Element types of tensors in files and in memory, block-quantised GGUF types included.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace puna {

enum class DType : uint8_t {
  F64,
  F32,
  F16,
  BF16,
  F8E4M3,
  F8E5M2,
  I64,
  I32,
  I16,
  I8,
  U64,
  U32,
  U16,
  U8,
  Bool,
  // GGUF blocks: Q4_0 and Q8_0 hold 32 elements, the K types 256.
  Q4_0,
  Q8_0,
  Q4_K,
  Q5_K,
  Q6_K,
};

struct DTypeInfo {
  std::string_view name;   // safetensors' name where there is one ("BF16", "F8_E4M3"), GGUF's for its blocks ("Q4_K")
  int32_t block_elements;  // elements per block; 1 for plain types
  int32_t block_bytes;     // bytes per block
};

const DTypeInfo& dtype_info(DType dtype);
inline std::string_view dtype_name(DType dtype) { return dtype_info(dtype).name; }

/// The dtype of that safetensors or GGUF name; nullopt when unknown.
std::optional<DType> dtype_from_name(std::string_view name);

/// Bytes of `elements` values; nullopt on overflow or when a block type's elements are no whole number of blocks.
std::optional<int64_t> dtype_bytes(DType dtype, int64_t elements);

inline bool dtype_is_block(DType dtype) { return dtype_info(dtype).block_elements > 1; }

}  // namespace puna
