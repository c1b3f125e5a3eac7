#include "quant/gguf_model.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <span>

#include "arch/names.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "checkpoint/scalar_type.h"
#include "io/file.h"
#include "io/gguf_write.h"
#include "quant/files.h"
#include "quant/gguf_blocks.h"
#include "quant/gguf_metadata.h"
#include "quant/output.h"

namespace puna::quant {
namespace fs = std::filesystem;
using namespace internal;
namespace {

constexpr int64_t kMaxTemplateBytes = 16 << 20;

struct GgufTensor {
  size_t row;
  int64_t first_col;  // of a routed row [E, in, out], where this tensor's outputs begin
  Format format;      // quantised, or kKeep
  io::TensorSpec spec;
};

DType block_dtype(const Format& format) {
  return format.code == Code::kQ8_0 ? DType::Q8_0 : format.code == Code::kQ4_0 ? DType::Q4_0 : DType::Q4_K;
}

int64_t stored_bytes(const io::TensorSpec& spec) {
  const auto elements = checked_numel(spec.shape);
  const auto bytes = elements ? dtype_bytes(spec.dtype, *elements) : std::nullopt;
  PUNA_CHECK(bytes, "'{}' is too large", spec.name);
  return *bytes;
}

std::string chat_template(const fs::path& model) {
  std::error_code ec;
  const fs::path file = (fs::is_directory(model, ec) ? model : model.parent_path()) / "chat_template.jinja";
  return io::path_exists(file) ? io::read_file(file, kMaxTemplateBytes) : "";
}

class GgufModelWriter {
 public:
  GgufModelWriter(const checkpoint::ModelSource& source, DType dense, const QuantiseOptions& options)
      : source_(source), dense_(dense), options_(options), rows_(arch::parameter_table(source.config())) {
    for (size_t i = 0; i < rows_.size(); ++i) plan_row(i);
    divisors_ = beyond_llama_cpp(source.config()).empty() ? rope_divisors(source.config().text) : std::vector<float>();
  }

  int64_t bytes() const {
    int64_t bytes = 1 << 20;
    for (const GgufTensor& tensor : tensors_) bytes += stored_bytes(tensor.spec);
    return bytes;
  }

  QuantiseReport write(const fs::path& out, const io::GgufMetadata& metadata) {
    std::vector<io::TensorSpec> specs;
    for (const GgufTensor& tensor : tensors_) specs.push_back(tensor.spec);
    if (!divisors_.empty())
      specs.push_back({"rope_freqs.weight", DType::F32, {static_cast<int64_t>(divisors_.size())}});
    io::GgufWriter writer(out, metadata, std::move(specs));
    int64_t total = 0;
    for (const GgufTensor& tensor : tensors_) total += *checked_numel(tensor.spec.shape);
    Progress progress("Writing", total * static_cast<int64_t>(c10::elementSize(scalar())), Progress::Unit::kBytes);
    for (const GgufTensor& tensor : tensors_) report_.tensors.push_back(write_tensor(writer, tensor, progress));
    if (!divisors_.empty()) writer.write(std::as_bytes(std::span(divisors_)));
    writer.commit();
    return std::move(report_);
  }

 private:
  at::ScalarType scalar() const { return *checkpoint::scalar_type(dense_); }

  void plan_row(size_t index) {
    const arch::ParamRow& row = rows_[index];
    const auto forms = arch::stored_forms(source_.config(), row, arch::NameFormat::kGguf);
    if (forms.empty()) return;
    int64_t first_col = 0;
    for (const arch::StoredPart& part : forms[0]) {
      const Format format = format_of(row, part);
      const bool plain = row.kind == arch::ParamKind::kNorm || row.kind == arch::ParamKind::kRouter;
      const DType kept = plain ? DType::F32 : format.code == Code::kBf16 ? DType::BF16 : dense_;
      tensors_.push_back(
          {index, first_col, format, {part.name, format.quantised() ? block_dtype(format) : kept, part.shape}});
      if (part.transposed) first_col += part.shape[1];
    }
  }

  Format format_of(const arch::ParamRow& row, const arch::StoredPart& part) {
    const Format& format = options_.rules.of(row);
    if (!format.quantised() || format.fits(part.shape.back())) return format;
    const Format wider{Code::kQ8_0, 32};
    const bool fits = wider.fits(part.shape.back());
    (fits ? report_.wider : report_.kept).push_back(part.name);
    return fits ? wider : Format{};
  }

  const at::Tensor& load(size_t row) {
    stop_if_interrupted(options_.interrupt);
    if (row == loaded_row_ && loaded_.defined()) return loaded_;
    loaded_.reset();
    loaded_ = source_.load(rows_[row], scalar()), loaded_row_ = row;
    return loaded_;
  }

  /// Outputs of a tensor's matrix: rows(begin, count) is [count, in].
  using Rows = std::function<at::Tensor(int64_t, int64_t)>;

  /// Of matrix `expert`, or of the only one (-1). What is stored as integers comes from there in FP32: nothing is
  /// rounded on the way, and no whole row of experts is held.
  Rows rows_of(const GgufTensor& tensor, int64_t expert) {
    const arch::ParamRow& row = rows_[tensor.row];
    const auto integers = tensor.format.quantised() ? source_.integers(row) : std::nullopt;
    if (integers && !integers->shapes.floats())
      return [this, &row, &tensor, matrix = std::max<int64_t>(expert, 0), shapes = integers->shapes](int64_t begin,
                                                                                                     int64_t count) {
        return integer_rows(row, shapes[matrix], matrix, tensor.first_col + begin, count);
      };
    const at::Tensor& whole = load(tensor.row);
    const auto& shape = tensor.spec.shape;
    const at::Tensor matrix = expert >= 0         ? whole.select(0, expert).narrow(1, tensor.first_col, shape[1]).t()
                              : shape.size() == 1 ? whole.unsqueeze(0)
                                                  : whole;
    return [matrix](int64_t begin, int64_t count) { return matrix.narrow(0, begin, count); };
  }

  at::Tensor integer_rows(const arch::ParamRow& row, const kernels::WeightShape& shape, int64_t matrix, int64_t begin,
                          int64_t count) const {
    const kernels::WeightFormat& format = shape.format;
    const int64_t width = format.channel_scales ? shape.k : format.group, groups = (shape.k + width - 1) / width;
    const at::Tensor q = at::empty({count, shape.k}, at::kChar), scales = at::empty({count, groups}, at::kFloat);
    const at::Tensor zeros = at::zeros({count, groups}, at::kChar);
    source_.read_integers(row, matrix, begin, begin + count,
                          {q.mutable_data_ptr<int8_t>(), scales.mutable_data_ptr<float>(),
                           format.zeros ? zeros.mutable_data_ptr<int8_t>() : nullptr});
    const auto spread = [&](const at::Tensor& of_groups) {
      return of_groups.to(at::kFloat).repeat_interleave(width, 1).narrow(1, 0, shape.k);
    };
    return (q.to(at::kFloat) - spread(zeros)) * spread(scales);
  }

  TensorReport write_tensor(io::GgufWriter& writer, const GgufTensor& tensor, Progress& progress) {
    const auto& shape = tensor.spec.shape;
    BlockSums sums;
    if (shape.size() == 3) {
      for (int64_t e = 0; e < shape[0]; ++e) write_matrix(writer, tensor, rows_of(tensor, e), e, sums, progress);
    } else {
      write_matrix(writer, tensor, rows_of(tensor, -1), -1, sums, progress);
    }
    return {.name = tensor.spec.name,
            .part = part_of(rows_[tensor.row]),
            .format = format_name(tensor.format),
            .shape = shape,
            .source_bytes = *checked_numel(shape) * static_cast<int64_t>(c10::elementSize(scalar())),
            .bytes = stored_bytes(tensor.spec),
            .squared_error = sums.squared_error,
            .squared_norm = sums.squared_norm};
  }

  void write_matrix(io::GgufWriter& writer, const GgufTensor& tensor, const Rows& rows_at, int64_t expert,
                    BlockSums& sums, Progress& progress) {
    const auto& shape = tensor.spec.shape;  // [in], [out, in] or [E, out, in]
    const int64_t out = shape.size() == 1 ? 1 : shape[shape.size() - 2], in = shape.back();
    const int64_t slab = std::max<int64_t>(1, kSlabElements / in);
    const InputStatistics* inputs = options_.statistics && tensor.format.quantised()
                                        ? options_.statistics(rows_[tensor.row].name, expert)
                                        : nullptr;
    const float* importance = inputs && !inputs->importance.empty() ? inputs->importance.data() : nullptr;
    for (int64_t r = 0; r < out; r += slab) {
      stop_if_interrupted(options_.interrupt);
      const int64_t count = std::min(slab, out - r);
      const at::Tensor rows = rows_at(r, count);
      progress.add(count * in * static_cast<int64_t>(c10::elementSize(scalar())));
      if (!tensor.format.quantised()) {
        writer.write(bytes_of(rows.to(*checkpoint::scalar_type(tensor.spec.dtype)).contiguous()));
        continue;
      }
      const at::Tensor floats = rows.to(at::kFloat).contiguous();
      std::vector<std::byte> blocks(static_cast<size_t>(count * block_row_bytes(tensor.format, in)));
      if (!encode_blocks(tensor.format, floats.const_data_ptr<float>(), count, in, importance, options_.threads,
                         blocks.data(), sums))
        fail(tensor.spec.name, "holds weights that are not finite, or too large for GGUF; is the download complete?");
      writer.write(blocks);
    }
  }

  const checkpoint::ModelSource& source_;
  DType dense_;
  const QuantiseOptions& options_;
  std::vector<arch::ParamRow> rows_;
  std::vector<GgufTensor> tensors_;
  std::vector<float> divisors_;
  QuantiseReport report_;
  at::Tensor loaded_;
  size_t loaded_row_ = 0;
};

}  // namespace

QuantiseReport write_gguf(const fs::path& path, const checkpoint::ModelSource& source,
                          const text::TokenizerTables& tokenizer, const fs::path& out, DType dense,
                          const QuantiseOptions& options) {
  if (io::path_exists(out)) fail(out.string(), "is there already; choose another name or remove it first");
  options.rules.check_layout(true, "--to");
  GgufModelWriter writer(source, dense, options);
  const fs::path parent = out.parent_path().empty() ? fs::path(".") : out.parent_path();
  std::error_code ec;
  fs::create_directories(parent, ec);
  check_free_space(parent, writer.bytes());
  io::GgufMetadata metadata = gguf_model_keys(source.config(), dense, options.rules);
  for (auto& entry : gguf_tokenizer_keys(tokenizer, source.config(), chat_template(path)))
    metadata.push_back(std::move(entry));
  return writer.write(out, metadata);
}

}  // namespace puna::quant
