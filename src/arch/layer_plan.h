// The layer plan: what each text layer is. The only place that knows which layer has rope, chunks, experts or
// temperature.
#pragma once

#include <vector>

#include "arch/config.h"

namespace puna::arch {

struct LayerPlan {
  int index;
  bool rope;         // rotate q and k
  bool chunked;      // attend within chunks of attention_chunk_size; else to everything before
  bool moe;          // router, routed experts and shared expert; else a dense FFN
  bool qk_norm;      // weightless RMS per head, after rope
  bool temperature;  // q scaled with the position
};

std::vector<LayerPlan> layer_plan(const TextConfig& config);

}  // namespace puna::arch
