// What the writers of quantised models share. Private to src/quant.
#pragma once

#include <ATen/ATen.h>

#include <span>

#include "arch/parameters.h"

namespace puna::quant::internal {

inline constexpr int64_t kSlabElements = int64_t{8} << 20;  // floats that are quantised at a time: 32 MiB

std::span<const std::byte> bytes_of(const at::Tensor& contiguous);

/// The rules' key for this row; "other" for what no rule is about.
const char* part_of(const arch::ParamRow& row);

}  // namespace puna::quant::internal
