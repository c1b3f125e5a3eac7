// src/checkpoint: from files of any supported format to the model's parameters, by the parameter table, and back.
// It knows which stored tensors make up a row; it does not compute with them.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "arch/config.h"
#include "arch/parameters.h"
#include "io/file.h"
#include "kernels/quantized/matmul.h"

namespace puna::checkpoint {

/// A row that is stored as integers, or FP8 bits, with scales: matrices [n outputs, k inputs], one for a linear, one
/// per expert for routed experts (gate's outputs before up's).
struct IntegerRow {
  kernels::WeightShapes shapes;  // of each
};

/// Outputs of such a matrix: q [rows, k], the bits of FP8; scales [rows, groups]; zeros [rows, groups], where its
/// format has them. `groups` is as pack_weights() takes it.
struct IntegerBlock {
  int8_t* q;
  float* scales;
  int8_t* zeros;
};

/// Where the matrices of a row lie in a packed file (packed_file.h), in the layout that kernels/quantized multiplies.
struct PackedRow {
  /// The block that a matrix lies in, an expert's two in one; and where in it.
  struct Place {
    int64_t block, block_bytes;  // in the file
    int64_t offset;              // of the matrix in the block
  };
  kernels::WeightShapes shapes;
  std::filesystem::path file;
  std::shared_ptr<const io::MappedFile> map;
  std::vector<Place> places;  // [matrices]

  const std::byte* matrix(size_t index) const {
    return map->bytes().data() + places[index].block + places[index].offset;
  }
};

/// A checkpoint opened for reading. Opening maps files and checks names, shapes and sizes of everything at once; tensor
/// bytes are touched only by load(). Missing, extra and mis-shaped tensors are listed together in one Error.
class ModelSource {
 public:
  virtual ~ModelSource() = default;

  const arch::Llama4Config& config() const { return config_; }
  const std::vector<arch::ParamRow>& rows() const { return rows_; }
  /// "safetensors BF16", "GGUF Q8_0", "compressed-tensors INT4 group 32", ... for people.
  virtual std::string format() const = 0;
  /// Bytes of all the tensors as stored.
  virtual int64_t stored_bytes() const = 0;
  /// True when load(row, dtype) returns the mapped bytes themselves.
  virtual bool is_zero_copy(const arch::ParamRow& row, at::ScalarType dtype) const = 0;

  /// The row in its table shape, as `dtype` (dequantised where needed). Zero-copy when the stored dtype and layout are
  /// the wanted ones; such a tensor keeps the mapping alive. Writing to it leaves the file as it is, but is seen by
  /// every other tensor loaded from the same row.
  virtual at::Tensor load(const arch::ParamRow& row, at::ScalarType dtype) const = 0;

  /// Whether the row's files hold it as fewer bits than a float's: integers, FP8 or GGUF blocks.
  virtual bool is_quantised(const arch::ParamRow&) const { return false; }
  /// How the row is stored, when that is as integers or FP8 with scales as the kernels multiply them; else nullopt.
  virtual std::optional<IntegerRow> integers(const arch::ParamRow&) const { return std::nullopt; }
  /// Where the row lies packed; nullptr for all but packed files.
  virtual const PackedRow* packed(const arch::ParamRow&) const { return nullptr; }
  /// Outputs begin to end of a matrix of such a row. Throws Error for scales that no quantiser writes.
  virtual void read_integers(const arch::ParamRow& row, int64_t matrix, int64_t begin, int64_t end,
                             const IntegerBlock& out) const;

 protected:
  arch::Llama4Config config_;
  std::vector<arch::ParamRow> rows_;
};

/// Whether the kernels multiply such a row in BF16: linears of the text model but the router, and routed experts.
inline bool packs_bf16(const arch::ParamRow& row) { return row.quantisable || row.kind == arch::ParamKind::kHead; }

/// What loading every row as `dtype` takes: `anonymous` bytes of new memory, and `mapped` bytes of the files that stay
/// in use as they are (page cache, which the kernel may drop and read again).
struct LoadedBytes {
  int64_t anonymous = 0;
  int64_t mapped = 0;
};
LoadedBytes loaded_bytes(const ModelSource& model, at::ScalarType dtype);

/// Opens a directory (Hugging Face or Meta layout) or a .gguf / .safetensors / .pth file.
std::unique_ptr<ModelSource> open_model(const std::filesystem::path& path);

}  // namespace puna::checkpoint
