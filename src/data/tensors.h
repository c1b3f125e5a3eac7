// Tensors of a mapped safetensors file as numbers, checked.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/error.h"
#include "io/tensor_file.h"
#include "io/text.h"

namespace puna::data {

/// The tensor `name`, which must be of this dtype and of one dimension, or (`columns` > 0) of rows of that many.
template <typename T>
std::span<const T> tensor_of(const io::TensorFile& file, const char* name, DType dtype, int64_t columns,
                             std::string_view where) {
  const io::TensorView* tensor = file.find(name);
  if (!tensor) fail(where, "has no tensor '{}'; is this a file of a dataset?", name);
  const bool shaped =
      columns == 0 ? tensor->shape.size() == 1 : tensor->shape.size() == 2 && tensor->shape[1] == columns;
  if (tensor->dtype != dtype || !shaped)
    fail(where, "the tensor '{}' is {} {}, expected {} of {} dimensions", name, dtype_name(tensor->dtype),
         io::shape_text(tensor->shape), dtype_name(dtype), columns == 0 ? 1 : 2);
  if (!io::is_aligned(*tensor)) fail(where, "the tensor '{}' is not aligned; was the file written by Puna?", name);
  return {reinterpret_cast<const T*>(tensor->bytes.data()), tensor->bytes.size() / sizeof(T)};
}

/// Offsets begin with 0, end with `end` and rise, by one at least if `strictly`.
inline void check_offsets(std::span<const int64_t> offsets, size_t end, bool strictly, const char* name,
                          std::string_view where) {
  if (offsets.empty() || offsets.front() != 0 || offsets.back() != static_cast<int64_t>(end))
    fail(where, "corrupt: '{}' does not lead from 0 to {}", name, end);
  for (size_t i = 1; i < offsets.size(); ++i)
    if (offsets[i] < offsets[i - 1] || (strictly && offsets[i] == offsets[i - 1]))
      fail(where, "corrupt: '{}' goes from {} to {} at {}", name, offsets[i - 1], offsets[i], i);
}

}  // namespace puna::data
