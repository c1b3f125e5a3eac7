// The safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "io/tensor_file.h"

namespace puna::io {

/// Opens one file, memory-mapped. Errors name the file and the first offending tensor: truncated, overlapping, out of
/// range, duplicated, sizes that do not match dtype and shape, unknown dtype, header over 100 MB.
TensorFile open_safetensors(const std::filesystem::path& path);

/// Opens the shards named by a `model.safetensors.index.json`: every entry must be in the shard that the index says,
/// and every shard's tensors must be in the index. Shard names with path separators are refused.
TensorFile open_safetensors_index(const std::filesystem::path& index);

/// Parses an image of a file already in memory (fuzzing, tests). The views point into `bytes`; `owner` keeps it alive.
TensorFile parse_safetensors(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                             std::string_view where);

/// Writes the tensors, in the order given, whole or not at all (temporary file, fsync, rename).
void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace puna::io
