// Tensors in and out of safetensors files for `puna golden`.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <string>

#include "io/tensor_file.h"

namespace puna::cli {

/// A tensor of a file as LibTorch's, its bytes copied. Throws Error when it is missing (naming the nearest) or of a
/// dtype other than F32, F16, BF16, I32 and I64.
at::Tensor read_tensor(const io::TensorFile& file, const std::string& name, const std::string& where);

/// Collects what a run produces and writes it as one file, sorted by name.
class GoldenOutput {
 public:
  /// Floating-point tensors become FP32 unless `keep_dtype`; others stay as they are.
  void add(const std::string& name, const at::Tensor& tensor, bool keep_dtype = false);
  void write(const std::filesystem::path& path) const;
  size_t size() const { return tensors_.size(); }

 private:
  std::map<std::string, at::Tensor> tensors_;
};

}  // namespace puna::cli
