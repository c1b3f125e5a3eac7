// One forward pass over rows of several sequences in a paged cache.
#pragma once

#include <ATen/ATen.h>

#include <span>
#include <vector>

#include "cache/block_manager.h"
#include "engine/loaded_model.h"
#include "model/paged_cache.h"
#include "ops/moe.h"

namespace puna::engine {

/// Consecutive tokens of one sequence, whose positions follow table.length.
struct StepRows {
  std::vector<TokenId> tokens;
  model::PageTable table;
  at::Tensor features;              // [R, D] of the images' rows among them, or undefined
  std::vector<int64_t> image_rows;  // [R] which of `tokens`
  std::vector<int64_t> outputs;     // which of `tokens` logits are wanted of
};

/// The pages of a sequence of which `length` positions have been run.
model::PageTable page_table(const cache::SequenceBlocks& blocks, int64_t length);

/// Logits [outputs, V] in FP32 on the CPU, in the order of the sequences; undefined when none are wanted. `exact`: the
/// same bits on any number of threads, for which products in FP32 run on one. `routing`: where all rows went, one for
/// each layer with experts.
at::Tensor run_rows(const LoadedModel& loaded, model::PagedCache& pages, std::span<const StepRows> sequences,
                    bool exact = false, std::vector<ops::Routing>* routing = nullptr);

}  // namespace puna::engine
