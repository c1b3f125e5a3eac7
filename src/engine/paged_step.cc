#include "engine/paged_step.h"

#include <ATen/Parallel.h>

#include <optional>

#include "arch/counts.h"
#include "base/error.h"
#include "engine/threads.h"
#include "ops/observe.h"

namespace puna::engine {

model::PageTable page_table(const cache::SequenceBlocks& blocks, int64_t length) {
  return {.global = blocks.global,
          .chunk = blocks.chunk,
          .chunk_base = blocks.chunk_base(),
          .length = length,
          .global_stored = blocks.global_stored,
          .chunk_stored = blocks.chunk_stored};
}

namespace {

// LibTorch adds FP32 products of few rows in an order that depends on the number of threads; BF16 ones it does not.
class OneThread {
 public:
  OneThread() : before_(at::get_num_threads()) { at::set_num_threads(1); }
  ~OneThread() { at::set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

}  // namespace

at::Tensor run_rows(const LoadedModel& loaded, model::PagedCache& pages, std::span<const StepRows> sequences,
                    bool exact, std::vector<ops::Routing>* routing) {
  const c10::InferenceMode guard;
  model::Batch batch;
  batch.pages = &pages;
  batch.sequence_begin = {0};
  std::vector<int64_t> tokens, outputs;
  std::vector<at::Tensor> features;
  for (const StepRows& rows : sequences) {
    const auto begin = static_cast<int64_t>(tokens.size());
    tokens.insert(tokens.end(), rows.tokens.begin(), rows.tokens.end());
    for (const int64_t row : rows.image_rows) batch.image_rows.push_back(begin + row);
    for (const int64_t row : rows.outputs) outputs.push_back(begin + row);
    if (!rows.image_rows.empty()) features.push_back(rows.features);
    batch.sequence_begin.push_back(static_cast<int64_t>(tokens.size()));
    batch.first_position.push_back(rows.table.length);
    batch.tables.push_back(rows.table);
  }
  PUNA_CHECK(!tokens.empty(), "a step without tokens");
  batch.tokens = at::tensor(tokens, at::kLong).to(loaded.device);
  if (!features.empty()) batch.image_features = features.size() == 1 ? features[0] : at::cat(features);
  // One row has to go through the head even when nobody reads it: a step has no form without.
  const bool wanted = !outputs.empty();
  if (!wanted) outputs.push_back(0);
  batch.output_rows = at::tensor(outputs, at::kLong).to(loaded.device);
  use_threads_for(arch::flops_per_token(loaded.config(), 1) * static_cast<double>(tokens.size()));
  std::optional<OneThread> one_thread;
  if (exact && (loaded.dtype == at::kFloat || loaded.dtype == at::kDouble)) one_thread.emplace();
  std::optional<ops::ObservingRoutes> observing;
  if (routing) observing.emplace(*routing);
  const at::Tensor logits = loaded.model->forward(batch);
  return wanted ? logits.to(at::kCPU, at::kFloat).contiguous() : at::Tensor();
}

}  // namespace puna::engine
