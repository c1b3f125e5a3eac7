// Writes GGUF version 3.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "io/file.h"
#include "io/safetensors.h"

namespace puna::io {

/// The types of metadata that Puna writes.
using GgufValue = std::variant<bool, uint32_t, float, std::string, std::vector<std::string>, std::vector<int32_t>>;
using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;

/// Writes one file piece by piece, so that no tensor need be in memory whole. Nothing is at `path` before commit().
/// Throws Error on a full disk, and on types or names that GGUF cannot hold.
class GgufWriter {
 public:
  /// Shapes outermost first; block types need rows of whole blocks.
  GgufWriter(const std::filesystem::path& path, const GgufMetadata& metadata, std::vector<TensorSpec> specs);

  /// The next bytes of the tensors, in the order of `specs`; a piece lies within one tensor.
  void write(std::span<const std::byte> bytes);
  void commit();

 private:
  void pad_to_next();

  std::vector<TensorSpec> specs_;
  std::vector<int64_t> bytes_;  // of each tensor
  AtomicFile file_;
  size_t next_ = 0;
  int64_t written_ = 0;  // of the next tensor
};

}  // namespace puna::io
