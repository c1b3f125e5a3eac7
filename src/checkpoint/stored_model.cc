#include "checkpoint/stored_model.h"

#include <algorithm>
#include <map>

#include "base/error.h"

namespace puna::checkpoint {

StoredModel::StoredModel(arch::Llama4Config config, std::vector<arch::ParamRow> rows, std::vector<StoredRow> stored,
                         std::string format, int64_t stored_bytes)
    : stored_(std::move(stored)), format_(std::move(format)), stored_bytes_(stored_bytes) {
  config_ = std::move(config);
  rows_ = std::move(rows);
  PUNA_CHECK(rows_.size() == stored_.size(), "{} rows, {} stored", rows_.size(), stored_.size());
  for (size_t i = 0; i < rows_.size(); ++i) {
    int64_t elements = 0;
    for (const Piece& piece : stored_[i].pieces) elements += piece.matrix->rows() * piece.matrix->cols();
    PUNA_CHECK(elements == c10::multiply_integers(rows_[i].shape), "'{}' has {} stored elements", rows_[i].name,
               elements);
    index_.emplace(rows_[i].name, i);
  }
}

const StoredRow& StoredModel::stored(const arch::ParamRow& row) const {
  const auto found = index_.find(row.name);
  PUNA_CHECK(found != index_.end(), "no parameter '{}'", row.name);
  return stored_[found->second];
}

bool StoredModel::is_zero_copy(const arch::ParamRow& row, at::ScalarType dtype) const {
  return mapped_bytes(stored(row), dtype) != nullptr;
}

at::Tensor StoredModel::load(const arch::ParamRow& row, at::ScalarType dtype) const {
  PUNA_CHECK(is_loadable(dtype), "'{}' cannot be loaded as {}", row.name, c10::toString(dtype));
  return load_stored_row(stored(row), row.shape, dtype);
}

bool StoredModel::is_quantised(const arch::ParamRow& row) const { return checkpoint::is_quantised(stored(row)); }

std::optional<IntegerRow> StoredModel::integers(const arch::ParamRow& row) const {
  return integers_of(stored(row), row.shape);
}

void StoredModel::read_integers(const arch::ParamRow& row, int64_t matrix, int64_t begin, int64_t end,
                                const IntegerBlock& out) const {
  const auto integers = this->integers(row);
  PUNA_CHECK(integers && 0 <= matrix && matrix < integers->shapes.count() && 0 <= begin && begin <= end &&
                 end <= integers->shapes.n,
             "'{}': outputs {} to {} of matrix {}", row.name, begin, end, matrix);
  read_stored_integers(stored(row), *integers, matrix, begin, end, out, row.name);
}

void ModelSource::read_integers(const arch::ParamRow& row, int64_t, int64_t, int64_t, const IntegerBlock&) const {
  PUNA_CHECK(false, "'{}' is not stored as integers", row.name);
}

LoadedBytes loaded_bytes(const ModelSource& model, at::ScalarType dtype) {
  LoadedBytes total;
  for (const auto& row : model.rows()) {
    const int64_t bytes = c10::multiply_integers(row.shape) * static_cast<int64_t>(c10::elementSize(dtype));
    (model.is_zero_copy(row, dtype) ? total.mapped : total.anonymous) += bytes;
  }
  return total;
}

std::string main_dtype_name(const std::vector<io::TensorView>& tensors) {
  std::map<DType, size_t> bytes;
  for (const auto& view : tensors) bytes[view.dtype] += view.bytes.size();
  const auto most =
      std::max_element(bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? "empty" : std::string(dtype_name(most->first));
}

}  // namespace puna::checkpoint
