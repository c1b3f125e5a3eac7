// The input of one step (docs/ARCHITECTURE.md, "Token-major and ragged").
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace puna::model {

class KvCache;

/// The tokens of every sequence of a step laid end to end. No padding exists.
struct Batch {
  at::Tensor tokens;                    // [T] int64
  std::vector<int64_t> sequence_begin;  // [num_sequences + 1], from 0 to T; no sequence is empty
  std::vector<int64_t> first_position;  // [num_sequences] position of each sequence's first token of this step
  std::vector<KvCache*> caches;         // [num_sequences], or empty: attend within the step alone (training)
  at::Tensor image_features;  // [patch tokens, D] in prompt order; replace <|patch|> embeddings. Undefined: none, and a
                              // <|patch|> token (a model may sample one) is embedded like any other
  at::Tensor output_rows;     // [R] int64 rows to return logits of; undefined: all T

  /// One sequence that starts at position 0, without a cache.
  static Batch single(at::Tensor tokens);
};

}  // namespace puna::model
