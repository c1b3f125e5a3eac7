// The parameter table: one row per weight of the model, with its names in every format that Puna reads.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "arch/config.h"

namespace puna::arch {

enum class ParamKind {
  kEmbedding,
  kNorm,
  kAttention,
  kRouter,
  kRoutedExperts,
  kSharedExpert,
  kDenseFfn,
  kHead,
  kVision,
  kProjector
};

/// Which dimension is split over ranks.
enum class ShardAxis { kNone, kRows, kColumns, kExperts };

struct ParamRow {
  std::string name;            // Puna's own: Hugging Face's, without the multimodal class's "language_model." prefix
  std::vector<int64_t> shape;  // Hugging Face's: linears [out, in]; routed experts [E, in, out]
  ParamKind kind;
  int layer;  // text or vision layer; -1 outside layers
  ShardAxis shard_axis;
  bool quantisable;
};

/// All rows in model order: text, then vision and projector when the config has them.
std::vector<ParamRow> parameter_table(const Llama4Config& config);

/// The name in a Hugging Face checkpoint of this model's class (multimodal: "language_model." before text names).
std::string hf_name(const Llama4Config& config, const ParamRow& row);

/// Puna's name of a Hugging Face name of either class; empty when it is none of the model's.
std::string from_hf_name(std::string_view hf);

}  // namespace puna::arch
