// What a quantised model will hold: every tensor of every file, before anything is computed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "arch/config.h"
#include "arch/parameters.h"
#include "base/json.h"
#include "io/safetensors.h"
#include "quant/rare.h"
#include "quant/rules.h"

namespace puna::quant {

/// One matrix that is quantised, or one tensor that is kept.
struct PlannedTensor {
  size_t row = 0;              // of the parameter table
  int64_t expert = -1;         // of a routed row whose experts become linears of their own
  int64_t first_col = 0;       // where its columns [in, out] begin in that row
  std::string name;            // kept: the tensor's; quantised: the module's, without ".weight"
  std::vector<int64_t> shape;  // kept: the row's; quantised: [out, in]
  Format format;
  std::vector<io::TensorSpec> stored = {};  // in the order in which they are written
  int64_t bytes = 0;                        // of `stored`
  int64_t elements = 0;
};

struct Plan {
  std::vector<arch::ParamRow> rows;
  std::vector<PlannedTensor> tensors;
  std::vector<size_t> shard_begin;  // first tensor of each file, and one past the last
  std::vector<std::string> kept;    // modules that a rule would quantise, whose columns are no whole groups
  int64_t bytes = 0;
  bool experts_differ = false;  // a layer's in their formats

  size_t num_shards() const { return shard_begin.size() - 1; }
  std::string shard_name(size_t shard) const;
};

/// `dense` is the type of kept tensors (BF16, F16 or F32); scales are F32 when it is F32, else BF16.
Plan make_plan(const arch::Llama4Config& config, const Rules& rules, DType dense, int64_t max_shard_bytes,
               const RareExperts& rare = {});

/// The type of the scales beside kept tensors of type `dense`.
DType scale_dtype(DType dense);

/// config.json's quantization_config for the plan; null when nothing is quantised.
Json quantization_config(const arch::Llama4Config& config, const Plan& plan);

}  // namespace puna::quant
