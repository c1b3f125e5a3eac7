// A model in the layout that the kernels multiply: a safetensors file whose first tensors begin at multiples of 4,096
// bytes, so that a single expert can be read past the page cache, and all of it be used where it is mapped.
//
// packed.safetensors: a U8 tensor for every packed linear, named as its row, and for every routed expert of a layer,
// "<layer>.feed_forward.experts.<e>": gate_up's matrix, then down's. Their sizes are multiples of 4,096 bytes. Then the
// other rows as dense tensors. Metadata: "format" = "puna-packed-1", "rows" = JSON {row: {bits, group, channel_scales,
// zeros, and floats where it is FP8 or BF16}}, or {row: [one for each expert]} where they differ. config.json and what
// else belongs to a model lie beside it.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/model_source.h"
#include "io/file.h"
#include "io/tensor_file.h"

namespace puna::checkpoint {

inline constexpr const char* kPackedFile = "packed.safetensors";

class PackedModel : public ModelSource {
 public:
  /// Opens `dir`/packed.safetensors. Throws Error for a file that is malformed or not of the model of config.json.
  explicit PackedModel(const std::filesystem::path& dir);

  std::string format() const override;
  int64_t stored_bytes() const override { return tensors_.total_bytes(); }
  bool is_zero_copy(const arch::ParamRow& row, at::ScalarType dtype) const override;
  /// Dense rows and those of floats; Error for integers.
  at::Tensor load(const arch::ParamRow& row, at::ScalarType dtype) const override;
  bool is_quantised(const arch::ParamRow& row) const override {
    const PackedRow* of = packed(row);
    return of != nullptr && of->shapes.formats.front().bits < 16;
  }
  const PackedRow* packed(const arch::ParamRow& row) const override;

 private:
  void check_dense(const arch::ParamRow& row) const;
  at::Tensor unpacked(const PackedRow& packed, const arch::ParamRow& row) const;
  int64_t offset_of(const std::string& tensor, int64_t bytes) const;

  std::filesystem::path file_;
  std::shared_ptr<const io::MappedFile> bytes_;
  io::TensorFile tensors_;
  std::map<std::string, PackedRow> packed_;
};

/// Whether write_packed() packs the row: it is stored as integers or FP8 that the kernels multiply, or is one that they
/// multiply in BF16, of a model that is neither FP16 nor FP32.
bool is_packable(const ModelSource& source, const arch::ParamRow& row);

/// Writes the model as a packed file with what lies beside it. Packed are rows stored as integers or FP8 that the
/// kernels multiply, and those that they multiply in BF16; the others, and all of a model in FP16 or FP32 that is not
/// quantised, stay dense. Throws Error when `out` holds a model already or the disk has no room; Interrupted when asked
/// to stop. The file is whole or absent; config.json comes last.
void write_packed(const std::filesystem::path& source_dir, const ModelSource& source, const std::filesystem::path& out,
                  int64_t threads, const std::atomic<bool>* interrupt);

}  // namespace puna::checkpoint
