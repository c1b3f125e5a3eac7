// Meta's consolidated .pth: a zip of raw storages and a pickle that may build tensors and nothing else.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

#include "io/tensor_file.h"

namespace puna::io {

/// Opens one torch.save zip archive, memory-mapped. The pickle interpreter knows dicts, tuples, numbers, strings,
/// torch._utils._rebuild_tensor_v2 and the storage types; any other global is an Error that names it. Compressed
/// entries are refused (torch never writes them), so there is nothing that can expand. Non-contiguous tensors are
/// copied.
TensorFile open_pth(const std::filesystem::path& path);

/// Parses bytes already in memory (fuzzing, tests).
TensorFile parse_pth(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, std::string_view where);

}  // namespace puna::io
