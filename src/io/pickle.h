// An interpreter for the pickles of torch.save: it builds a dict of tensors and can call nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/dtype.h"

namespace puna::io {

/// A storage that the pickle refers to by key.
struct PickledStorage {
  std::optional<DType> dtype;  // nullopt: untyped, numel counts bytes
  std::string_view key;
  int64_t numel = 0;
};

/// A strided view of a storage. Nothing is checked against the storage's real size yet.
struct PickledTensor {
  std::string_view name;
  PickledStorage storage;
  DType dtype = DType::F32;
  int64_t offset = 0;            // elements
  std::vector<int64_t> shape;    // at most 16 extents, none negative
  std::vector<int64_t> strides;  // elements, as many as extents, none negative
};

/// Runs the pickle (protocols 2 to 5); its result must be one dict of tensors by name. Entries named "..._extra_state"
/// that are no tensors (Meta's checkpoints have some) are left out. The views point into `pickle`. Throws
/// Error(`where`) for any global but those that tensors need, naming it, and for anything malformed or too large.
std::vector<PickledTensor> unpickle_tensors(std::span<const std::byte> pickle, std::string_view where);

}  // namespace puna::io
