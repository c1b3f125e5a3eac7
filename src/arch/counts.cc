#include "arch/counts.h"

#include <algorithm>

#include "arch/layer_plan.h"
#include "base/checked.h"
#include "base/error.h"

namespace puna::arch {
namespace {

constexpr int64_t kInt4Group = 32;

// validate() has bounded every row and their sum.
int64_t row_numel(const ParamRow& row) {
  const auto numel = checked_numel(row.shape);
  PUNA_CHECK(numel.has_value(), "the shape of {} overflows", row.name);
  return *numel;
}

int64_t positions_seen(const TextConfig& config, const LayerPlan& plan, int64_t context) {
  return plan.chunked ? std::min(context, config.attention_chunk_size) : context;
}

}  // namespace

std::string_view kind_name(ParamKind kind) {
  switch (kind) {
    case ParamKind::kEmbedding:
      return "embedding";
    case ParamKind::kNorm:
      return "norms";
    case ParamKind::kAttention:
      return "attention";
    case ParamKind::kRouter:
      return "routers";
    case ParamKind::kRoutedExperts:
      return "routed experts";
    case ParamKind::kSharedExpert:
      return "shared experts";
    case ParamKind::kDenseFfn:
      return "dense FFN";
    case ParamKind::kHead:
      return "head";
    case ParamKind::kVision:
      return "vision";
    case ParamKind::kProjector:
      return "projector";
  }
  return "";
}

ParameterCounts count_parameters(const Llama4Config& config) {
  ParameterCounts counts;
  for (const ParamRow& row : parameter_table(config)) {
    const int64_t total = row_numel(row);
    const bool vision = row.kind == ParamKind::kVision || row.kind == ParamKind::kProjector;
    int64_t active = vision ? 0 : total;
    if (row.kind == ParamKind::kRoutedExperts)
      active = total / config.text.num_local_experts * config.text.num_experts_per_tok;
    (vision ? counts.vision : counts.text) += total;
    counts.total += total;
    counts.active += active;
    auto it = std::ranges::find(counts.kinds, row.kind, &KindCount::kind);
    if (it == counts.kinds.end()) it = counts.kinds.insert(it, {.kind = row.kind});
    it->total += total;
    it->active += active;
  }
  return counts;
}

int64_t weight_bytes(const Llama4Config& config, DType dtype) {
  const bool small = dtype_bytes(dtype, 256) < dtype_bytes(DType::BF16, 256);
  int64_t bytes = 0;
  for (const ParamRow& row : parameter_table(config)) {
    const DType stored = small && !row.quantisable ? DType::BF16 : dtype;
    const int64_t numel = row_numel(row);
    const auto row_bytes = dtype_bytes(stored, numel);
    if (!row_bytes)
      fail("counts", "{} elements of {} are no whole number of {} blocks", numel, row.name, dtype_name(stored));
    bytes += *row_bytes;
  }
  return bytes;
}

int64_t weight_bytes_int4(const Llama4Config& config) {
  int64_t bytes = 0;
  for (const ParamRow& row : parameter_table(config)) {
    const int64_t numel = row_numel(row);
    bytes += row.quantisable ? numel / 2 + (numel + kInt4Group - 1) / kInt4Group * 2 : numel * 2;
  }
  return bytes;
}

int64_t kv_cache_bytes(const TextConfig& config, int64_t context, DType cache_dtype) {
  int64_t positions = 0;
  for (const LayerPlan& plan : layer_plan(config)) positions += positions_seen(config, plan, context);
  const auto values = checked_mul(positions, 2 * config.num_key_value_heads * config.head_dim);
  const auto bytes = values ? dtype_bytes(cache_dtype, *values) : std::nullopt;
  if (!bytes) fail("cache", "{} tokens of context need more than 2^63 bytes; ask for less", context);
  return *bytes;
}

double flops_per_token(const Llama4Config& config, int64_t context) {
  double matmul = 0, positions = 0;
  for (const KindCount& kind : count_parameters(config).kinds)
    if (kind.kind != ParamKind::kEmbedding && kind.kind != ParamKind::kNorm) matmul += static_cast<double>(kind.active);
  for (const LayerPlan& plan : layer_plan(config.text))
    positions += static_cast<double>(positions_seen(config.text, plan, context));
  return 2 * matmul + 4 * positions * static_cast<double>(config.text.num_attention_heads * config.text.head_dim);
}

}  // namespace puna::arch
