// What `puna golden` computes: logits, traces, pixel values, gradients and greedy continuations of token ids.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string>

#include "cli/golden_data.h"
#include "engine/loaded_model.h"

namespace puna::cli {

/// One prompt: `ids` [T], the tiles of its images (undefined without), and the end of the names of what it gives.
struct GoldenPrompt {
  at::Tensor ids;      // [T] int64
  at::Tensor pixels;   // [tiles, 3, S, S] or undefined
  std::string suffix;  // ".40", ".all" or ""
};

struct GoldenLogits {
  std::string name = "logits";
  std::optional<at::Tensor> sample_cols;  // write samples and summaries instead of whole logits
  bool trace = false;
  int64_t pieces = 0;  // tokens per piece through the cache; 0: one pass without a cache
};

/// <name><suffix> [T, V], or for large vocabularies logits_sampled, logsumexp, top20_ids, top20_logits, logits_last;
/// with `trace` also the internals under their plain names.
void golden_logits(const engine::LoadedModel& loaded, const GoldenPrompt& prompt, const GoldenLogits& options,
                   GoldenOutput& out);

/// greedy<suffix> [steps]: argmax continuation through the cache, stop tokens ignored.
void golden_greedy(const engine::LoadedModel& loaded, const GoldenPrompt& prompt, int64_t steps, GoldenOutput& out);

/// Internals of the vision model for `pixels`, under their plain names.
void golden_vision_trace(const engine::LoadedModel& loaded, const at::Tensor& pixels, GoldenOutput& out);

/// `loss` and the gradient of every parameter that has one, under checkpoint names. ids and labels are [B, T].
void golden_gradients(const engine::LoadedModel& loaded, const at::Tensor& ids, const at::Tensor& labels,
                      const at::Tensor& pixels, GoldenOutput& out);

/// Adds the adapters into the dense weights, and drops them.
void merge_adapters(model::Model& model);

}  // namespace puna::cli
