// What all layers of one step share: positions, rotations, temperatures, and which tokens attend together.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "arch/config.h"
#include "model/batch.h"

namespace puna::model {

/// Consecutive tokens of one sequence that attend to the same keys: those from `first_key` to their own position.
struct Span {
  int64_t row;        // of the step, its first token
  int64_t num_rows;   // tokens
  int64_t position;   // of its first token
  int64_t first_key;  // position of the oldest key that it may see
};

struct Step {
  /// Checks the batch; throws Error for a token outside the vocabulary, or caches that are elsewhere than the batch
  /// says.
  Step(const Batch& batch, const arch::TextConfig& config, const std::vector<double>& frequencies,
       at::ScalarType dtype);

  const Batch batch;  // a copy, for what runs again in backward
  int64_t num_tokens;
  std::vector<int64_t> token_ids;         // [T]
  at::Tensor rotations;                   // [T, 1, K/2] complex64 (fp64 models: complex128), for rope layers
  at::Tensor temperatures;                // [T, 1, 1] fp32 (fp64), or undefined when all are 1
  std::vector<std::vector<Span>> whole;   // per sequence, for global layers: one span
  std::vector<std::vector<Span>> chunks;  // per sequence, for chunked layers: one span per chunk
};

/// Rotation frequencies of the pairs of a head [K/2], scaled as the config says (SPEC 3).
std::vector<double> rope_frequencies(const arch::TextConfig& config);

}  // namespace puna::model
