#include "train/memory_need.h"

#include <algorithm>

#include "arch/layer_plan.h"
#include "arch/parameters.h"
#include "base/error.h"
#include "base/memory.h"
#include "train/learner.h"

namespace puna::train {
namespace {

constexpr double kMost = 1LL << 58;  // more than any machine has; sums of a few of these still fit

int64_t clamped(double bytes) { return static_cast<int64_t>(std::min(bytes, kMost)); }

double numel(const arch::ParamRow& row) {
  double count = 1;
  for (const int64_t size : row.shape) count *= static_cast<double>(size);
  return count;
}

// Inputs of the products of a block, a token.
double kept_values(const arch::TextConfig& t, bool moe) {
  const double heads =
      static_cast<double>(2 * t.num_attention_heads + 2 * t.num_key_value_heads) * static_cast<double>(t.head_dim);
  const double hidden = moe ? static_cast<double>(t.num_experts_per_tok + 1) * static_cast<double>(t.intermediate_size)
                            : static_cast<double>(t.intermediate_size_mlp);
  return 2 * static_cast<double>(t.hidden_size) + heads + 2 * hidden;
}

double activation_bytes(const Recipe& recipe, const arch::TextConfig& text, double element) {
  double tokens = 0, kept = 0, largest = 0;
  for (const StageConfig& stage : recipe.stages) {
    const BatchConfig& batch = stage.batch;
    const int64_t micro = batch.micro_tokens > 0 ? std::min(batch.micro_tokens, batch.tokens) : batch.tokens;
    tokens = std::max(tokens, static_cast<double>(micro));
  }
  for (const arch::LayerPlan& layer : arch::layer_plan(text)) {
    kept += kept_values(text, layer.moe);
    largest = std::max(largest, kept_values(text, layer.moe));
  }
  if (recipe.recompute) kept = static_cast<double>(text.num_hidden_layers * text.hidden_size) + largest;
  return tokens * element * kept;
}

}  // namespace

MemoryNeed memory_need(const Recipe& recipe, const arch::Llama4Config& config) {
  const double wide = recipe.precision == "float64" ? 8 : 4;
  const double copy = recipe.precision == "bfloat16" ? 2 : 0;
  const auto rows = arch::parameter_table(config);
  double all = 0, learned = 0, most = 0;
  for (const arch::ParamRow& row : rows) {
    all += numel(row);
    if (std::ranges::any_of(recipe.stages, [&](const StageConfig& stage) { return !is_frozen(row, stage.freeze); }))
      learned += numel(row);
  }
  for (const StageConfig& stage : recipe.stages) {
    double sum = 0;
    for (const arch::ParamRow& row : rows) sum += is_frozen(row, stage.freeze) ? 0 : numel(row);
    most = std::max(most, sum);
  }
  return {.weights = clamped(all * (wide + copy)),
          .gradients = clamped(most * wide),
          .moments = clamped(learned * 2 * wide),
          .snapshot = clamped((all + 2 * learned) * wide),
          .activations = clamped(activation_bytes(recipe, config.text, copy > 0 ? copy : wide))};
}

void check_memory(const MemoryNeed& need, int64_t available, std::string_view where) {
  if (need.total() <= available) return;
  fail(where,
       "training needs {} of memory (weights {}, gradients {}, moments {}, a checkpoint's copy {}, activations at "
       "least {}), {} are free; {}, or --no-memory-check tries anyway",
       format_bytes(need.total()), format_bytes(need.weights), format_bytes(need.gradients), format_bytes(need.moments),
       format_bytes(need.snapshot), format_bytes(need.activations), format_bytes(available),
       need.fixed() <= available ? "lower batch.micro_tokens, set recompute = true" : "use a smaller model");
}

}  // namespace puna::train
