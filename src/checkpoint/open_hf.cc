// Hugging Face directories: dense, compressed-tensors and fbgemm_fp8; fused experts and one linear per expert.
#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"
#include "checkpoint/assemble.h"
#include "checkpoint/binder.h"
#include "checkpoint/quant_config.h"
#include "checkpoint/stored_model.h"
#include "io/safetensors.h"
#include "kernels/formats/packed_integers.h"

namespace puna::checkpoint {
namespace {

constexpr std::array kScaleDtypes = {DType::BF16, DType::F16, DType::F32, DType::F64};
constexpr std::string_view kRemedy =
    "is config.json this model's, and is every file downloaded and of the same revision?";

std::string without_suffix(const std::string& text, std::string_view suffix) {
  return text.ends_with(suffix) ? text.substr(0, text.size() - suffix.size()) : text;
}

/// Blocks along an extent; `block` 0 is one block over all of it.
int64_t blocks(int64_t extent, int64_t block) { return block == 0 ? 1 : num_blocks(extent, block); }

class HfBinder {
 public:
  HfBinder(const arch::Llama4Config& config, const QuantConfig& quant, Binder& binder)
      : config_(config), quant_(quant), binder_(binder) {}

  StoredRow bind(const arch::ParamRow& row) {
    if (row.kind == arch::ParamKind::kRoutedExperts) return bind_experts(row);
    const bool linear = row.shape.size() == 2 && row.kind != arch::ParamKind::kEmbedding;
    return assemble(row, arch::stored_forms(config_, row, arch::NameFormat::kHuggingFace)[0],
                    [&](const auto& part) { return linear ? bind_linear(part) : bind_dense(part.name, part.shape); });
  }

 private:
  using MatrixPtr = std::shared_ptr<const StoredMatrix>;

  MatrixPtr bind_dense(const std::string& name, const std::vector<int64_t>& shape) {
    const auto* view = binder_.take(name, shape, dense_dtypes());
    if (!view) return nullptr;
    const int64_t cols = shape.back();
    return matrix_of(*view, 0, cols ? c10::multiply_integers(shape) / cols : 0, cols);
  }

  /// Quantisers leave out linears that the targets cover: then the plain weight is there, and no scale.
  bool is_left_dense(const std::string& module) const {
    return binder_.has(module + ".weight") && !binder_.has(module + ".weight_scale") &&
           !binder_.has(module + ".weight_packed");
  }

  /// A linear's weight [out, in], quantised where the config says so.
  MatrixPtr bind_linear(const arch::StoredPart& part) {
    const std::string module = without_suffix(part.name, ".weight");
    const QuantScheme* scheme = part.name.ends_with(".weight") ? quant_.scheme_of(module) : nullptr;
    return scheme && !is_left_dense(module) ? bind_quantised(module, part.shape[0], part.shape[1], *scheme)
                                            : bind_dense(part.name, part.shape);
  }

  MatrixPtr bind_quantised(const std::string& module, int64_t out, int64_t in, const QuantScheme& scheme) {
    const DType coded = scheme.packed() ? DType::I32 : scheme.coding == Coding::kInt8 ? DType::I8 : DType::F8E4M3;
    const int bits = packed_bits(scheme.coding);
    const int64_t stored_cols = scheme.packed() ? kernels::packed_words(bits, in) : in;
    const auto* values = binder_.take(module + (scheme.packed() ? ".weight_packed" : ".weight"), {out, stored_cols},
                                      std::span(&coded, 1));
    const int64_t scale_rows = blocks(out, scheme.block_rows), scale_cols = blocks(in, scheme.block_cols);
    const auto* scales = take_scales(module + ".weight_scale", scale_rows, scale_cols, scheme.block_rows == 0);
    const io::TensorView* zeros = nullptr;
    if (!scheme.symmetric) {
      const DType type = scheme.packed() ? DType::I32 : DType::I8;
      const int64_t rows = scheme.packed() ? kernels::packed_words(bits, scale_rows) : scale_rows;
      zeros = binder_.take(module + ".weight_zero_point", {rows, scale_cols}, std::span(&type, 1));
    }
    if (scheme.packed()) check_stored_shape(module + ".weight_shape", out, in);
    if (!values || !scales || (!scheme.symmetric && !zeros)) return nullptr;
    Quantised q{.coding = scheme.coding,
                .values = values->bytes,
                .row_bytes = scheme.packed() ? stored_cols * 4 : stored_cols,
                .scales = scales->bytes,
                .scale_dtype = scales->dtype,
                .block_rows = scheme.block_rows ? scheme.block_rows : out,
                .block_cols = scheme.block_cols ? scheme.block_cols : in,
                .zero_points = zeros ? zeros->bytes : std::span<const std::byte>()};
    return quantised_matrix(out, in, q, values->owner);
  }

  const io::TensorView* take_scales(const std::string& name, int64_t rows, int64_t cols, bool one_for_all) {
    // One scale for all: writers disagree about [], [1] and [1, 1].
    const auto stored = binder_.shape_of(name);
    if (one_for_all && stored && std::all_of(stored->begin(), stored->end(), [](int64_t n) { return n == 1; }))
      return binder_.take(name, *stored, kScaleDtypes);
    return binder_.take(name, {rows, cols}, kScaleDtypes);
  }

  /// weight_shape repeats the unpacked shape; it must agree with the table.
  void check_stored_shape(const std::string& name, int64_t out, int64_t in) {
    const DType type = DType::I64;
    const auto* view = binder_.take(name, {2}, std::span(&type, 1));
    if (!view) return;
    std::array<int64_t, 2> stored;
    std::memcpy(stored.data(), view->bytes.data(), sizeof stored);
    if (stored[0] != out || stored[1] != in)
      binder_.note_mismatch(name, fmt::format("says [{}, {}], expected [{}, {}]", stored[0], stored[1], out, in));
  }

  /// Routed experts [E, in, out]: fused, or one linear [out, in] per expert, which is how they are quantised.
  StoredRow bind_experts(const arch::ParamRow& row) {
    const std::string name = arch::hf_name(config_, row);
    const size_t dot = name.rfind('.');
    const std::string experts = name.substr(0, dot);
    const bool down = name.ends_with("down_proj");
    if (quant_.experts_fused() && quant_.scheme_of(experts)) return bind_fbgemm_experts(name, down, row.shape);
    const std::string first = experts + (down ? ".0.down_proj" : ".0.gate_proj");
    const bool unfused = !binder_.has(name) && (quant_.scheme_of(first) || binder_.has(first + ".weight"));
    const auto format = unfused ? arch::NameFormat::kHuggingFaceUnfused : arch::NameFormat::kHuggingFace;
    return assemble(row, arch::stored_forms(config_, row, format)[0], [&](const auto& part) -> MatrixPtr {
      if (binder_.hopeless()) return nullptr;
      return unfused ? bind_linear(part) : bind_dense(part.name, part.shape);
    });
  }

  /// FP8 [E, in, out] with one scale per output channel: [E, 1, out] for gate_up_proj, [E, out, 1] for down_proj.
  StoredRow bind_fbgemm_experts(const std::string& name, bool down, const std::vector<int64_t>& shape) {
    const DType fp8 = DType::F8E4M3;
    const int64_t num_experts = shape[0], in = shape[1], out = shape[2];
    const auto* values = binder_.take(name, shape, std::span(&fp8, 1));
    const auto* scales = binder_.take(
        name + "_scale", down ? std::vector<int64_t>{num_experts, out, 1} : std::vector<int64_t>{num_experts, 1, out},
        kScaleDtypes);
    StoredRow row;
    if (!values || !scales) return row;
    const int64_t scale_bytes = *dtype_bytes(scales->dtype, out);
    for (int64_t e = 0; e < num_experts; ++e) {
      Quantised q{.coding = Coding::kFp8E4M3,
                  .values = values->bytes.subspan(e * in * out, in * out),
                  .row_bytes = out,
                  .scales = scales->bytes.subspan(e * scale_bytes, scale_bytes),
                  .scale_dtype = scales->dtype,
                  .block_rows = in,
                  .block_cols = 1,
                  .zero_points = {}};
      row.pieces.push_back({quantised_matrix(in, out, q, values->owner), e * in * out, out, 1});
    }
    return row;
  }

  const arch::Llama4Config& config_;
  const QuantConfig& quant_;
  Binder& binder_;
};

}  // namespace

std::unique_ptr<ModelSource> open_hf(const std::filesystem::path& config_path, const std::filesystem::path& weights) {
  const Json json = read_json_file(config_path);
  arch::Llama4Config config = arch::config_from_hf(json, config_path.string());
  const QuantConfig quant = QuantConfig::from_hf(json, config_path.string());
  const bool sharded = weights.extension() == ".json";
  const io::TensorFile file = sharded ? io::open_safetensors_index(weights) : io::open_safetensors(weights);

  Problems problems;
  Binder binder(file, problems);
  HfBinder hf(config, quant, binder);
  auto rows = arch::parameter_table(config);
  std::vector<StoredRow> stored;
  stored.reserve(rows.size());
  for (const auto& row : rows) stored.push_back(hf.bind(row));
  for (const auto& view : file.tensors())
    if (arch::is_known_extra(view.name, arch::NameFormat::kHuggingFace) || quant.is_activation_scale(view.name))
      binder.ignore(view.name);
  binder.note_extras();
  problems.raise(weights.string(), kRemedy);

  const std::string format =
      quant.description().empty() ? "safetensors " + main_dtype_name(file.tensors()) : quant.description();
  return std::make_unique<StoredModel>(std::move(config), std::move(rows), std::move(stored), format,
                                       file.total_bytes());
}

}  // namespace puna::checkpoint
