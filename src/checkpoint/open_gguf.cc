// GGUF files of architecture "llama4": text only, weights plain or in blocks.
#include <array>
#include <cstring>

#include "base/error.h"
#include "checkpoint/assemble.h"
#include "checkpoint/stored_model.h"
#include "io/gguf.h"

namespace puna::checkpoint {
namespace {

constexpr std::array kWeightDtypes = {DType::BF16, DType::F16,  DType::F32,  DType::F64, DType::Q4_0,
                                      DType::Q8_0, DType::Q4_K, DType::Q5_K, DType::Q6_K};

/// rope_freqs.weight divides the rope frequencies. It is part of the model: without it, long contexts go wrong.
void read_rope_factors(Binder& binder, arch::TextConfig& text) {
  const DType type = DType::F32;
  if (!binder.has("rope_freqs.weight")) return;
  const auto* view = binder.take("rope_freqs.weight", {text.head_dim / 2}, std::span(&type, 1));
  if (!view) return;
  std::vector<float> factors(text.head_dim / 2);
  std::memcpy(factors.data(), view->bytes.data(), factors.size() * sizeof(float));
  text.rope_factors.assign(factors.begin(), factors.end());
}

}  // namespace

std::unique_ptr<ModelSource> open_gguf_model(const std::filesystem::path& path) {
  const io::GgufFile file = io::open_gguf(path);
  const std::string where = path.string();
  arch::Llama4Config config = arch::config_from_gguf(file.metadata, where);
  Problems problems;
  std::vector<Binder> binders;
  binders.emplace_back(file.tensors, problems);
  read_rope_factors(binders[0], config.text);
  arch::validate(config, where);

  auto rows = arch::parameter_table(config);
  std::vector<StoredRow> stored;
  stored.reserve(rows.size());
  for (const auto& row : rows)
    stored.push_back(assemble(row, arch::stored_forms(config, row, arch::NameFormat::kGguf), binders, kWeightDtypes));
  binders[0].note_extras();
  problems.raise(where, "is the file complete, and of architecture llama4?");
  return std::make_unique<StoredModel>(std::move(config), std::move(rows), std::move(stored),
                                       "GGUF " + main_dtype_name(file.tensors.tensors()), file.tensors.total_bytes());
}

}  // namespace puna::checkpoint
