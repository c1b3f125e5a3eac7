// GGUF version 3 (and 2): typed metadata, a tensor table and aligned tensor data.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

#include "base/json.h"
#include "io/tensor_file.h"

namespace puna::io {

struct GgufFile {
  Json metadata;  // object: key -> number, string, bool, or array of these
  TensorFile tensors;
};

/// Opens one GGUF file, memory-mapped. Throws Error on anything malformed, or a tensor type outside F64 F32 F16 BF16 I8
/// I16 I32 I64 Q4_0 Q8_0 Q4_K Q5_K Q6_K (the error lists what is supported).
GgufFile open_gguf(const std::filesystem::path& path);

/// Parses bytes already in memory (fuzzing, tests).
GgufFile parse_gguf(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, std::string_view where);

}  // namespace puna::io
