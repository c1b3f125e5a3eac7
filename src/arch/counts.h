// How much a model is: parameters, bytes, cache and arithmetic, by formula from the config alone.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "arch/config.h"
#include "arch/parameters.h"
#include "base/dtype.h"

namespace puna::arch {

/// "embedding", "routed experts", ...
std::string_view kind_name(ParamKind kind);

struct KindCount {
  ParamKind kind;
  int64_t total = 0;
  int64_t active = 0;  // used by one text token
};

/// A text token uses all text parameters, but only num_experts_per_tok of the routed experts; the vision model and the
/// projector run per image tile and are never counted as active.
struct ParameterCounts {
  int64_t total = 0;
  int64_t active = 0;
  int64_t text = 0;    // total without vision and projector
  int64_t vision = 0;  // vision and projector
  std::vector<KindCount> kinds;
  double active_fraction() const { return static_cast<double>(active) / static_cast<double>(total); }
};

ParameterCounts count_parameters(const Llama4Config& config);

/// Bytes of all weights when stored as `dtype`. Only quantisable rows shrink below 16 bits; the others stay BF16.
int64_t weight_bytes(const Llama4Config& config, DType dtype);
/// Bytes with quantisable rows as 4-bit integers in groups of 32 with a BF16 scale (4.5 bits), the others BF16.
int64_t weight_bytes_int4(const Llama4Config& config);

/// Keys and values of one sequence of `context` tokens: chunked layers hold min(context, attention_chunk_size)
/// positions, the others all. Throws Error beyond int64.
int64_t kv_cache_bytes(const TextConfig& config, int64_t context, DType cache_dtype);

/// Of the token at position context - 1: 2 per active parameter in a matmul (all but embedding and norms), and per
/// layer 4 H K per position seen: min(context, chunk) in chunked layers, context in the others.
double flops_per_token(const Llama4Config& config, int64_t context);

}  // namespace puna::arch
