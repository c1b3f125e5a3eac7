#include "checkpoint/assemble.h"

#include <algorithm>
#include <map>

#include "base/error.h"

namespace puna::checkpoint {
namespace {

/// A shape as a batch of matrices; vectors are one row.
struct MatrixShape {
  int64_t batch, rows, cols;
  explicit MatrixShape(const std::vector<int64_t>& shape)
      : batch(shape.size() == 3 ? shape[0] : 1),
        rows(shape.size() >= 2 ? shape[shape.size() - 2] : 1),
        cols(shape.back()) {}
};

/// Where the next part of each expert begins: parts stand side by side along the last dimension.
class Placement {
 public:
  explicit Placement(const arch::ParamRow& row) : target_(row.shape) {}

  /// The piece for `matrix`, which begins at [first_row, first_col] of matrix `index` of the part.
  Piece piece(const arch::StoredPart& part, std::shared_ptr<const StoredMatrix> matrix, int64_t index,
              int64_t first_row, int64_t first_col) const {
    const int64_t expert = part.expert >= 0 ? part.expert : index;
    const int64_t r = part.transposed ? first_col : first_row, c = part.transposed ? first_row : first_col;
    const int64_t offset = (expert * target_.rows + r) * target_.cols + start(part.expert) + c;
    return part.transposed ? Piece{std::move(matrix), offset, 1, target_.cols}
                           : Piece{std::move(matrix), offset, target_.cols, 1};
  }

  void finish_part(const arch::StoredPart& part) {
    const MatrixShape shape(part.shape);
    starts_[part.expert] += part.transposed ? shape.rows : shape.cols;
  }

  bool fills_row(const arch::StoredPart& part) const {
    return !part.transposed && part.expert < 0 && MatrixShape(part.shape).cols == target_.cols;
  }

 private:
  int64_t start(int expert) const {
    const auto found = starts_.find(expert);
    return found == starts_.end() ? 0 : found->second;
  }

  MatrixShape target_;
  std::map<int, int64_t> starts_;
};

/// One file's share of a part.
struct Share {
  std::vector<int64_t> stored_shape;
  MatrixShape local;      // after the slice
  int64_t first_row = 0;  // of the slice, in the stored matrix
  int64_t stored_rows;    // per matrix of the batch
};

/// nullopt when the part cannot be split over so many files.
std::optional<Share> share_of(const arch::StoredPart& part, int64_t num_files) {
  std::vector<int64_t> local = part.shape;
  if (part.file_axis >= 0) {
    if (local[part.file_axis] % num_files != 0) return std::nullopt;
    local[part.file_axis] /= num_files;
  }
  Share share{.stored_shape = local, .local = MatrixShape(local), .stored_rows = 0};
  if (part.slice_total > 1) {
    const int64_t shares = part.slice_end - part.slice_begin;
    if (local[0] % shares != 0) return std::nullopt;
    share.first_row = local[0] / shares * part.slice_begin;
    share.stored_shape[0] = local[0] / shares * part.slice_total;
  }
  share.stored_rows = MatrixShape(share.stored_shape).rows;
  return share;
}

class FileAssembler {
 public:
  FileAssembler(const arch::ParamRow& row, std::vector<Binder>& files, std::span<const DType> dtypes)
      : placement_(row), files_(files), dtypes_(dtypes) {}

  StoredRow assemble(const arch::StoredForm& form) {
    for (const auto& part : form) {
      const auto share = share_of(part, static_cast<int64_t>(files_.size()));
      if (share)
        add_part(part, *share);
      else
        files_[0].note_mismatch(part.name, fmt::format("cannot be split over {} files", files_.size()));
      placement_.finish_part(part);
    }
    return std::move(row_);
  }

 private:
  void add_part(const arch::StoredPart& part, const Share& share) {
    for (size_t f = 0; f < files_.size(); ++f) {
      const auto* view = take(files_[f], part, share.stored_shape);
      if (!view || (f > 0 && part.file_axis < 0)) continue;
      if (!fits_blocks(*view, share.local.cols)) {
        files_[f].note_mismatch(part.name, fmt::format("is {} with {} columns, no whole blocks",
                                                       dtype_name(view->dtype), share.local.cols));
        continue;
      }
      add_share(part, share, *view, static_cast<int64_t>(f));
    }
  }

  static bool fits_blocks(const io::TensorView& view, int64_t cols) {
    return dtype_bytes(view.dtype, cols).has_value();
  }

  const io::TensorView* take(Binder& file, const arch::StoredPart& part, std::vector<int64_t> shape) {
    const auto stored = file.shape_of(part.name);
    if (part.merged_experts && stored && stored->size() + 1 == shape.size()) {
      shape[1] *= shape[0];
      shape.erase(shape.begin());
    }
    return file.take(part.name, shape, dtypes_);
  }

  void add_share(const arch::StoredPart& part, const Share& share, const io::TensorView& view, int64_t file) {
    const auto& [batch, rows, cols] = share.local;
    const bool split_cols = part.file_axis == static_cast<int>(part.shape.size()) - 1;
    const int64_t first_row = part.file_axis >= 0 && !split_cols ? file * rows : 0;
    const int64_t first_col = split_cols ? file * cols : 0;
    if (files_.size() == 1 && placement_.fills_row(part) && part.slice_total == 1) {
      row_.pieces.push_back(placement_.piece(part, matrix_of(view, 0, batch * rows, cols), 0, 0, 0));
      return;
    }
    for (int64_t b = 0; b < batch; ++b) {
      auto matrix = matrix_of(view, b * share.stored_rows + share.first_row, rows, cols);
      row_.pieces.push_back(placement_.piece(part, std::move(matrix), b, first_row, first_col));
    }
  }

  Placement placement_;
  std::vector<Binder>& files_;
  std::span<const DType> dtypes_;
  StoredRow row_;
};

}  // namespace

StoredRow assemble(const arch::ParamRow& row, const arch::StoredForm& form, const MatrixOf& matrix_of_part) {
  Placement placement(row);
  StoredRow result;
  for (const auto& part : form) {
    if (auto matrix = matrix_of_part(part)) result.pieces.push_back(placement.piece(part, std::move(matrix), 0, 0, 0));
    placement.finish_part(part);
  }
  return result;
}

StoredRow assemble(const arch::ParamRow& row, const std::vector<arch::StoredForm>& forms, std::vector<Binder>& files,
                   std::span<const DType> dtypes) {
  PUNA_CHECK(!forms.empty(), "no stored form of '{}'", row.name);
  auto exists = [&](const arch::StoredForm& form) {
    return std::all_of(form.begin(), form.end(), [&](const auto& part) { return files[0].has(part.name); });
  };
  auto form = std::find_if(forms.begin(), forms.end(), exists);
  if (form == forms.end()) form = forms.begin();
  return FileAssembler(row, files, dtypes).assemble(*form);
}

}  // namespace puna::checkpoint
