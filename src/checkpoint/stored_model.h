// A checkpoint of any format after opening: the table's rows and, beside each, the pieces that make it up.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "checkpoint/model_source.h"
#include "checkpoint/stored_row.h"

namespace puna::checkpoint {

class StoredModel final : public ModelSource {
 public:
  /// `stored` has one entry per row. Checks that the pieces of each row have as many elements as the row.
  StoredModel(arch::Llama4Config config, std::vector<arch::ParamRow> rows, std::vector<StoredRow> stored,
              std::string format, int64_t stored_bytes);

  std::string format() const override { return format_; }
  int64_t stored_bytes() const override { return stored_bytes_; }
  bool is_zero_copy(const arch::ParamRow& row, at::ScalarType dtype) const override;
  at::Tensor load(const arch::ParamRow& row, at::ScalarType dtype) const override;
  bool is_quantised(const arch::ParamRow& row) const override;
  std::optional<IntegerRow> integers(const arch::ParamRow& row) const override;
  void read_integers(const arch::ParamRow& row, int64_t matrix, int64_t begin, int64_t end,
                     const IntegerBlock& out) const override;

 private:
  const StoredRow& stored(const arch::ParamRow& row) const;

  std::vector<StoredRow> stored_;
  std::unordered_map<std::string, size_t> index_;
  std::string format_;
  int64_t stored_bytes_;
};

/// The openers of the single formats; `path` is what the user named.
std::unique_ptr<ModelSource> open_hf(const std::filesystem::path& config, const std::filesystem::path& weights);
std::unique_ptr<ModelSource> open_meta(const std::filesystem::path& dir);
std::unique_ptr<ModelSource> open_gguf_model(const std::filesystem::path& path);

/// The float or block type that most of the file's bytes have: "BF16", "Q4_K".
std::string main_dtype_name(const std::vector<io::TensorView>& tensors);

}  // namespace puna::checkpoint
