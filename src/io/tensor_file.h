// src/io: bytes from and to disk: memory maps, atomic files, safetensors, GGUF, Meta's .pth, image codecs.
// Every file is hostile until its sizes are checked. It knows nothing of Llama 4: names and meanings belong to arch and
// checkpoint.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/dtype.h"

namespace puna::io {

/// A contiguous tensor inside a mapped file. Valid as long as `owner` lives. The formats do not promise alignment:
/// where is_aligned() is false the bytes must be copied (memcpy) before they are read as numbers.
struct TensorView {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;  // outermost first, also for GGUF (whose files list the innermost first)
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;  // the mapping, or a private copy
};

/// True when `bytes` begin at a multiple of the element's size (block types: always), so that they may be used in
/// place.
bool is_aligned(const TensorView& tensor);

/// The tensors of one opened model file or of all its shards, by name. Copying is cheap: the bytes are shared.
class TensorFile {
 public:
  /// Adds a tensor; throws Error naming `where` when the name is already there.
  void add(TensorView tensor, std::string_view where);

  /// Makes room for `count` tensors in all.
  void reserve(size_t count);

  /// nullptr when there is no tensor of that name.
  const TensorView* find(std::string_view name) const;

  const std::vector<TensorView>& tensors() const { return tensors_; }

  /// Sum of the tensors' bytes.
  int64_t total_bytes() const;

  /// Free-form strings of the header (safetensors' __metadata__); of the first shard where there are several.
  std::map<std::string, std::string> metadata;

 private:
  struct NameHash {
    using is_transparent = void;
    size_t operator()(std::string_view name) const { return std::hash<std::string_view>()(name); }
  };

  std::vector<TensorView> tensors_;
  std::unordered_map<std::string, size_t, NameHash, std::equal_to<>> index_;
};

}  // namespace puna::io
