// Hugging Face directories: dense, compressed-tensors and fbgemm_fp8; fused experts and one linear per expert.
#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"
#include "checkpoint/binder.h"
#include "checkpoint/quant_config.h"
#include "checkpoint/stored_model.h"
#include "io/safetensors.h"

namespace puna::checkpoint {
namespace {

constexpr std::array kScaleDtypes = {DType::BF16, DType::F16, DType::F32, DType::F64};
constexpr std::string_view kRemedy =
    "is config.json this model's, and is every file downloaded and of the same revision?";

/// Buffers that other programs store and nobody needs.
bool is_known_buffer(std::string_view name) {
  return name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".rotary_embedding.freqs_ci");
}

std::string without_suffix(const std::string& text, std::string_view suffix) {
  return text.ends_with(suffix) ? text.substr(0, text.size() - suffix.size()) : text;
}

int64_t blocks(int64_t extent, int64_t block) { return block == 0 ? 1 : (extent + block - 1) / block; }

Piece whole_row(std::shared_ptr<const StoredMatrix> matrix) {
  const int64_t cols = matrix->cols();
  return {std::move(matrix), 0, cols, 1};
}

class HfBinder {
 public:
  HfBinder(const arch::Llama4Config& config, const QuantConfig& quant, Binder& binder, bool tied_head)
      : config_(config), quant_(quant), binder_(binder), tied_head_(tied_head) {}

  StoredRow bind(const arch::ParamRow& row) {
    std::string name = arch::hf_name(config_, row);
    if (row.kind == arch::ParamKind::kRoutedExperts) return bind_experts(name, row.shape);
    if (row.kind == arch::ParamKind::kHead && tied_head_ && !binder_.has(name)) name = embedding_name_;
    if (row.kind == arch::ParamKind::kEmbedding) embedding_name_ = name;
    const bool linear = row.shape.size() == 2 && name.ends_with(".weight") && row.kind != arch::ParamKind::kEmbedding;
    const QuantScheme* scheme = linear ? quant_.scheme_of(without_suffix(name, ".weight")) : nullptr;
    auto matrix = scheme ? bind_linear(without_suffix(name, ".weight"), row.shape[0], row.shape[1], *scheme)
                         : bind_dense(name, row.shape);
    return matrix ? StoredRow{{whole_row(matrix)}} : StoredRow{};
  }

 private:
  using MatrixPtr = std::shared_ptr<const StoredMatrix>;

  MatrixPtr bind_dense(const std::string& name, const std::vector<int64_t>& shape) {
    const auto* view = binder_.take(name, shape, dense_dtypes());
    if (!view) return nullptr;
    const int64_t cols = shape.back();
    return matrix_of(*view, 0, cols ? c10::multiply_integers(shape) / cols : 0, cols);
  }

  /// The linear `module` [out, in] as the scheme stores it.
  MatrixPtr bind_linear(const std::string& module, int64_t out, int64_t in, const QuantScheme& scheme) {
    const DType coded = scheme.packed() ? DType::I32 : scheme.coding == Coding::kInt8 ? DType::I8 : DType::F8E4M3;
    const int per_word = scheme.coding == Coding::kPacked4 ? 8 : 4;
    const int64_t stored_cols = scheme.packed() ? (in + per_word - 1) / per_word : in;
    const auto* values = binder_.take(module + (scheme.packed() ? ".weight_packed" : ".weight"), {out, stored_cols},
                                      std::span(&coded, 1));
    const int64_t scale_rows = blocks(out, scheme.block_rows), scale_cols = blocks(in, scheme.block_cols);
    const auto* scales = take_scales(module + ".weight_scale", scale_rows, scale_cols, scheme.block_rows == 0);
    const io::TensorView* zeros = nullptr;
    if (!scheme.symmetric) {
      const DType type = scheme.packed() ? DType::I32 : DType::I8;
      const int64_t rows = scheme.packed() ? (scale_rows + per_word - 1) / per_word : scale_rows;
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
    std::vector<int64_t> shape = {rows, cols};
    if (one_for_all) shape = binder_.shape_if_single(name, {1});
    return binder_.take(name, shape, kScaleDtypes);
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

  /// Routed experts [E, in, out]: fused as stored by the model's class, or one linear [out, in] per expert.
  StoredRow bind_experts(const std::string& name, const std::vector<int64_t>& shape) {
    const size_t dot = name.rfind('.');
    const std::string experts = name.substr(0, dot), last = name.substr(dot + 1);
    if (quant_.experts_fused()) return bind_fbgemm_experts(name, experts, last, shape);
    const bool gate_up = last == "gate_up_proj";
    const std::string first = experts + ".0." + (gate_up ? "gate_proj" : "down_proj");
    if (!quant_.scheme_of(first) && (binder_.has(name) || !binder_.has(first + ".weight")))
      return dense_row(name, shape);
    StoredRow row;
    const int64_t in = shape[1], out = shape[2];
    for (int64_t e = 0; e < shape[0] && !binder_.hopeless(); ++e) {
      const std::string expert = fmt::format("{}.{}.", experts, e);
      if (gate_up) {
        add_expert(row, expert + "gate_proj", out / 2, in, e * in * out, out);
        add_expert(row, expert + "up_proj", out / 2, in, e * in * out + out / 2, out);
      } else {
        add_expert(row, expert + "down_proj", out, in, e * in * out, out);
      }
    }
    return row;
  }

  StoredRow dense_row(const std::string& name, const std::vector<int64_t>& shape) {
    auto matrix = bind_dense(name, shape);
    return matrix ? StoredRow{{whole_row(matrix)}} : StoredRow{};
  }

  void add_expert(StoredRow& row, const std::string& module, int64_t out, int64_t in, int64_t offset, int64_t stride) {
    const QuantScheme* scheme = quant_.scheme_of(module);
    auto matrix = scheme ? bind_linear(module, out, in, *scheme) : bind_dense(module + ".weight", {out, in});
    if (matrix) row.pieces.push_back({std::move(matrix), offset, 1, stride});
  }

  /// FP8 [E, in, out] with one scale per output channel: [E, 1, out] for gate_up_proj, [E, out, 1] for down_proj.
  StoredRow bind_fbgemm_experts(const std::string& name, const std::string& experts, const std::string& last,
                                const std::vector<int64_t>& shape) {
    if (!quant_.scheme_of(experts)) return dense_row(name, shape);
    const DType fp8 = DType::F8E4M3;
    const int64_t num_experts = shape[0], in = shape[1], out = shape[2];
    const auto* values = binder_.take(name, shape, std::span(&fp8, 1));
    const bool gate_up = last == "gate_up_proj";
    const auto* scales = binder_.take(
        name + "_scale",
        gate_up ? std::vector<int64_t>{num_experts, 1, out} : std::vector<int64_t>{num_experts, out, 1}, kScaleDtypes);
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
  bool tied_head_;
  std::string embedding_name_;
};

bool ties_head(const Json& json) {
  auto tied = [](const Json& object) {
    const auto found = object.find("tie_word_embeddings");
    return found != object.end() && found->is_boolean() && found->get<bool>();
  };
  return tied(json) || (json.contains("text_config") && json["text_config"].is_object() && tied(json["text_config"]));
}

}  // namespace

std::unique_ptr<ModelSource> open_hf(const std::filesystem::path& config_path, const std::filesystem::path& weights) {
  const Json json = read_json_file(config_path);
  arch::Llama4Config config = arch::config_from_hf(json, config_path.string());
  const QuantConfig quant = QuantConfig::from_hf(json, config_path.string());
  const bool sharded = weights.extension() == ".json";
  const io::TensorFile file = sharded ? io::open_safetensors_index(weights) : io::open_safetensors(weights);

  Problems problems;
  Binder binder(file, problems);
  HfBinder hf(config, quant, binder, ties_head(json));
  auto rows = arch::parameter_table(config);
  std::vector<StoredRow> stored;
  stored.reserve(rows.size());
  for (const auto& row : rows) stored.push_back(hf.bind(row));
  for (const auto& view : file.tensors())
    if (is_known_buffer(view.name) || quant.is_activation_scale(view.name)) binder.ignore(view.name);
  binder.note_extras();
  problems.raise(weights.string(), kRemedy);

  const std::string format =
      quant.description().empty() ? "safetensors " + main_dtype_name(file.tensors()) : quant.description();
  return std::make_unique<StoredModel>(std::move(config), std::move(rows), std::move(stored), format,
                                       file.total_bytes());
}

}  // namespace puna::checkpoint
