#include "train/flops.h"

#include <algorithm>
#include <chrono>

#include "arch/layer_plan.h"
#include "arch/parameters.h"

namespace puna::train {
namespace {

// Query-key pairs of a sequence of `length` tokens within chunks of `chunk` (0: none).
double visible_pairs(int64_t length, int64_t chunk) {
  const auto triangle = [](int64_t n) { return 0.5 * static_cast<double>(n) * static_cast<double>(n + 1); };
  if (chunk == 0 || chunk >= length) return triangle(length);
  return static_cast<double>(length / chunk) * triangle(chunk) + triangle(length % chunk);
}

enum class Part { kText, kVision, kAdapter };

Part part_of(const arch::ParamRow& row) {
  if (row.kind == arch::ParamKind::kProjector || row.name.starts_with("vision_model.vision_adapter"))
    return Part::kAdapter;
  return row.kind == arch::ParamKind::kVision ? Part::kVision : Part::kText;
}

// Parameters of a part that one of its rows is multiplied with; the head is counted where its targets are known.
double matmul_parameters(const arch::Llama4Config& config, Part part) {
  double sum = 0;
  for (const arch::ParamRow& row : arch::parameter_table(config)) {
    if (part_of(row) != part || row.shape.size() < 2) continue;
    if (row.kind == arch::ParamKind::kEmbedding || row.kind == arch::ParamKind::kHead) continue;
    if (row.name.find("positional_embedding") != std::string::npos) continue;
    auto count = static_cast<double>(c10::multiply_integers(row.shape));
    if (row.kind == arch::ParamKind::kRoutedExperts)
      count *=
          static_cast<double>(config.text.num_experts_per_tok) / static_cast<double>(config.text.num_local_experts);
    sum += count;
  }
  return sum;
}

}  // namespace

double tile_flops(const arch::Llama4Config& config) {
  if (!config.vision) return 0;
  const arch::VisionConfig& v = *config.vision;
  const double patches = static_cast<double>(v.grid() * v.grid() + 1);
  const double attention = 4.0 * static_cast<double>(v.hidden_size * v.num_hidden_layers) * patches * patches;
  return 2 * matmul_parameters(config, Part::kVision) * patches + attention +
         2 * matmul_parameters(config, Part::kAdapter) * static_cast<double>(v.tokens_per_tile());
}

double step_flops(const arch::Llama4Config& config, const StepBatch& batch) {
  const arch::TextConfig& t = config.text;
  double forward = 2 * matmul_parameters(config, Part::kText) * static_cast<double>(batch.num_tokens);
  forward += 2.0 * static_cast<double>(t.hidden_size * t.vocab_size) * static_cast<double>(batch.num_targets);
  const auto plan = arch::layer_plan(t);
  const auto chunked =
      static_cast<double>(std::ranges::count_if(plan, [](const auto& layer) { return layer.chunked; }));
  const double whole = static_cast<double>(plan.size()) - chunked;
  for (const MicroBatch& micro : batch.micro)
    for (size_t i = 0; i + 1 < micro.sequence_begin.size(); ++i) {
      const int64_t length = micro.sequence_begin[i + 1] - micro.sequence_begin[i];
      const double pairs = chunked * visible_pairs(length, t.attention_chunk_size) + whole * visible_pairs(length, 0);
      forward += 4.0 * static_cast<double>(t.num_attention_heads * t.head_dim) * pairs;
    }
  forward += tile_flops(config) * static_cast<double>(batch.num_tiles);
  return 3 * forward;
}

double measured_peak_flops(at::ScalarType dtype) {
  using Clock = std::chrono::steady_clock;
  // Short, so that on a busy machine some of the runs are not interrupted.
  constexpr int64_t kSide = 384;
  constexpr int kRuns = 60;
  const c10::InferenceMode guard;
  const at::Tensor a = at::ones({kSide, kSide}, at::TensorOptions().dtype(dtype)), b = at::ones_like(a);
  at::Tensor out = at::mm(a, b);
  double best = 1e30;
  for (int i = 0; i < kRuns; ++i) {
    const auto start = Clock::now();
    at::mm_out(out, a, b);
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return 2.0 * kSide * kSide * kSide / best;
}

}  // namespace puna::train
