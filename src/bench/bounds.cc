#include "bench/bounds.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "arch/layer_plan.h"
#include "arch/parameters.h"

namespace puna::bench {

namespace {

/// Of all matrices; streamed ones as if they were in memory.
int64_t bytes_of(const ops::Weight& weight) {
  if (weight.streamed) return kernels::packed_bytes(weight.streamed->shapes);
  return weight.packed ? weight.packed->num_bytes() : static_cast<int64_t>(weight.dense.nbytes());
}

}  // namespace

std::string Case::name() const {
  return kind == Kind::kPrompt ? fmt::format("prompt {}", length) : fmt::format("decode {} at {}", batch, length);
}

ModelWork work_of(const model::Model& model, const model::PageFormat& format) {
  ModelWork work;
  work.config = model.config().text;
  const model::PageBytes pages = model::page_bytes(work.config, format);
  work.cache_row_bytes = static_cast<double>(pages.global + pages.chunk) /
                         static_cast<double>(model::PagedCache::kPositions * work.config.num_hidden_layers);
  const auto experts = static_cast<double>(work.config.num_local_experts);
  for (const arch::ParamRow& row : arch::parameter_table(model.config())) {
    const ops::Weight& weight = model.weights().at(row.name);
    const auto bytes = static_cast<double>(bytes_of(weight));
    double parameters = 1;
    for (const int64_t side : row.shape) parameters *= static_cast<double>(side);
    switch (row.kind) {
      case arch::ParamKind::kEmbedding:
      case arch::ParamKind::kVision:
      case arch::ParamKind::kProjector:
        break;  // a few rows, or no text
      case arch::ParamKind::kRoutedExperts:
        work.integer = (weight.packed && !weight.packed->shapes.floats()) ||
                       (weight.streamed && !weight.streamed->shapes.floats());
        work.expert_bytes += bytes / experts;  // gate and up, and down, of all layers
        work.expert_parameters += parameters / experts;
        break;
      case arch::ParamKind::kHead:
        work.head_bytes += bytes;
        work.head_parameters += parameters;
        work.resident_bytes += bytes;
        break;
      case arch::ParamKind::kNorm:
        work.resident_bytes += bytes;
        break;
      default:
        work.resident_bytes += bytes;
        work.resident_parameters += parameters;
    }
  }
  for (const arch::LayerPlan& layer : arch::layer_plan(work.config)) work.expert_layers += layer.moe ? 1 : 0;
  const auto layers = static_cast<double>(std::max<int64_t>(1, work.expert_layers));
  work.expert_bytes /= layers;
  work.expert_parameters /= layers;
  return work;
}

Work work_of(const ModelWork& model, const Case& what, std::optional<double> experts_hit) {
  const arch::TextConfig& config = model.config;
  const auto tokens = static_cast<double>(what.tokens()), layers = static_cast<double>(model.expert_layers);
  const auto experts = static_cast<double>(config.num_local_experts),
             chosen = static_cast<double>(config.num_experts_per_tok);
  const double rows_of_head = what.kind == Case::Kind::kPrompt ? 1 : tokens;
  Work work;
  const double expected = experts == 0 ? 0 : experts * (1 - std::pow(1 - chosen / experts, tokens));
  work.experts_hit = experts_hit.value_or(expected);

  // Pairs of a query and a key that it sees, over all layers.
  double pairs = 0, keys = 0;
  for (const arch::LayerPlan& layer : arch::layer_plan(config)) {
    const int64_t chunk = layer.chunked ? config.attention_chunk_size : 0;
    const auto seen = [&](int64_t position) {
      return static_cast<double>(chunk > 0 ? position % chunk + 1 : position + 1);
    };
    if (what.kind == Case::Kind::kDecode) {
      pairs += tokens * seen(what.length);
      keys += tokens * seen(what.length);
    } else {
      for (int64_t p = 0; p < what.length; ++p) pairs += seen(p);
    }
  }
  const auto heads = static_cast<double>(config.num_attention_heads * config.head_dim);
  work.bytes = model.resident_bytes + layers * work.experts_hit * model.expert_bytes + keys * model.cache_row_bytes;
  work.operations = 2 * (tokens * (model.resident_parameters + layers * chosen * model.expert_parameters) +
                         rows_of_head * model.head_parameters) +
                    4 * heads * pairs;
  return work;
}

double bound_seconds(const Work& work, const Limits& limits, const char** which) {
  const double reading = work.bytes / limits.read_bandwidth, computing = work.operations / limits.operations;
  *which = reading >= computing ? "bytes" : "operations";
  return std::max(reading, computing);
}

}  // namespace puna::bench
