#include "arch/layer_plan.h"

#include <algorithm>

#include "base/error.h"

namespace puna::arch {

std::vector<LayerPlan> layer_plan(const TextConfig& config) {
  const auto num_layers = static_cast<size_t>(config.num_hidden_layers);
  PUNA_CHECK(config.uses_rope.size() == num_layers, "{} rope flags for {} layers", config.uses_rope.size(), num_layers);
  std::vector<LayerPlan> plan;
  plan.reserve(num_layers);
  for (size_t i = 0; i < num_layers; ++i) {
    const bool rope = config.uses_rope[i] != 0;
    const bool chunked = config.chunked_layers.empty() ? rope : config.chunked_layers.at(i) != 0;
    plan.push_back({.index = static_cast<int>(i),
                    .rope = rope,
                    .chunked = chunked && config.attention_chunk_size > 0,
                    .moe = std::ranges::binary_search(config.moe_layers, static_cast<int64_t>(i)),
                    .qk_norm = config.use_qk_norm && rope,
                    .temperature = config.attn_temperature_tuning && !rope});
  }
  return plan;
}

}  // namespace puna::arch
