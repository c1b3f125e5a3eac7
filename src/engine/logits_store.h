// Logits of a text, kept exactly until another model has computed its own. Private to src/engine.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <vector>

#include "io/descriptor.h"

namespace puna::engine::internal {

/// Pieces [n, V] in FP32, given back in the order in which they were added. A piece whose values are all BF16 takes
/// half. Up to `memory_bytes` lie in memory, what follows in a file without a name in `scratch`.
class LogitsStore {
 public:
  LogitsStore(std::filesystem::path scratch, int64_t memory_bytes);

  /// Throws Error on a full disk.
  void add(const at::Tensor& logits);
  /// The next piece; an empty tensor after the last.
  at::Tensor next();

 private:
  struct Piece {
    at::Tensor values;  // undefined: in the file
    at::ScalarType dtype;
    std::vector<int64_t> shape;
    int64_t offset = 0, bytes = 0;
  };
  void write(const at::Tensor& values, Piece& piece);

  std::filesystem::path scratch_;
  int64_t memory_left_, file_bytes_ = 0;
  io::Descriptor file_;
  std::vector<Piece> pieces_;
  size_t next_ = 0;
};

}  // namespace puna::engine::internal
