// The input of one step (docs/ARCHITECTURE.md, "Token-major and ragged").
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "model/page_table.h"

namespace puna::model {

class KvCache;
class PagedCache;

/// The tokens of every sequence of a step laid end to end. No padding exists.
struct Batch {
  at::Tensor tokens;                    // [T] int64
  std::vector<int64_t> sequence_begin;  // [num_sequences + 1], from 0 to T; no sequence is empty
  std::vector<int64_t> first_position;  // [num_sequences] position of each sequence's first token of this step
  // At most one of these is there; without, sequences attend within the step alone (training).
  std::vector<KvCache*> caches;     // [num_sequences]
  PagedCache* pages = nullptr;      // with `tables`
  std::vector<PageTable> tables;    // [num_sequences]
  at::Tensor image_features;        // [rows, D] in order; replace embeddings. Undefined: none, and a <|patch|> token (a
                                    // model may sample one) is embedded like any other
  std::vector<int64_t> image_rows;  // rows of the step that they replace; empty: all <|patch|> tokens
  at::Tensor output_rows;           // [R] int64 rows to return logits of; undefined: all T

  /// One sequence that starts at position 0, without a cache.
  static Batch single(at::Tensor tokens);
};

}  // namespace puna::model
