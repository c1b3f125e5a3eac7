// The one correspondence between element types of files (DType) and of tensors (c10::ScalarType).
#pragma once

#include <c10/core/ScalarType.h>

#include <optional>

#include "base/dtype.h"

namespace puna::checkpoint {

/// nullopt for GGUF blocks and for the unsigned types wider than a byte.
std::optional<c10::ScalarType> scalar_type(DType dtype);

/// nullopt for types that no file of ours holds.
std::optional<DType> dtype_of(c10::ScalarType type);

/// The type to compute in when nobody asks for one: float for weights stored as F32 or F64, else bfloat16.
c10::ScalarType default_compute_type(DType stored);

}  // namespace puna::checkpoint
