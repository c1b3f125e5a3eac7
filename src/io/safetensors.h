// The safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "io/file.h"
#include "io/tensor_file.h"

namespace puna::io {

/// Opens one file, memory-mapped; no tensor byte is touched. Errors name the file and the first offending tensor:
/// truncated, overlapping, out of range, holes, duplicated, sizes that do not match dtype and shape, unknown dtype,
/// header over 100 MB.
TensorFile open_safetensors(const std::filesystem::path& path);

/// Opens the shards named by a `model.safetensors.index.json`: every entry must be in the shard that the index says,
/// and every shard's tensors must be in the index. Shard names with path separators are refused.
TensorFile open_safetensors_index(const std::filesystem::path& index);

/// Parses an image of a file already in memory (fuzzing, tests). The views point into `bytes`; `owner` keeps it alive.
TensorFile parse_safetensors(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                             std::string_view where);

/// What the header says of one tensor that is to be written.
struct TensorSpec {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;  // outermost first
};

/// Writes one file tensor by tensor, so that no more than one tensor need be in memory. Nothing is at `path` before
/// commit(). Throws Error on names that are duplicate, reserved or not UTF-8, and on a full disk.
class SafetensorsWriter {
 public:
  /// The first tensor begins at a multiple of `alignment` (of 8) bytes.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> specs,
                    const std::map<std::string, std::string>& metadata = {}, int64_t alignment = 8);

  /// The next bytes of the tensors in the order of `specs`; a tensor may come in parts, a call is of one tensor.
  void write(std::span<const std::byte> bytes);
  void commit();

 private:
  std::string where_;
  std::vector<TensorSpec> specs_;
  AtomicFile file_;
  size_t next_ = 0;
  int64_t written_ = 0;  // of the next tensor
};

/// Writes the tensors, in the order given, whole or not at all (temporary file, fsync, rename).
void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace puna::io
