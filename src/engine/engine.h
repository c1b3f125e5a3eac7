// Many requests at once over one model: continuous batching, chunked prefill, shared prefixes, preemption, speculation.
//
// One thread steps; any thread submits and cancels. Each step runs at most step_tokens rows: one for every stream that
// is being answered, and pieces of prompts. Requests join and leave between steps.
#pragma once

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <vector>

#include "engine/adapters.h"
#include "engine/embedding.h"
#include "engine/expert_rows.h"
#include "engine/paged_step.h"
#include "engine/request.h"
#include "engine/scheduler.h"
#include "engine/speculation.h"

namespace puna::engine {

struct EngineOptions {
  int64_t step_tokens = 512;      // rows of a step at most, which bounds its time; from 2
  int64_t max_sequences = 256;    // completions that run at once
  int64_t cache_bytes = 0;        // of keys and values; 0: half of the memory that is available
  int64_t context_tokens = 8192;  // of a usual sequence: how cache_bytes are shared between the two kinds of layers
  bool int8_cache = false;        // keys and values in INT8: half the bytes of BF16, not exact
  /// Each sequence runs by itself, in pieces that depend on its own positions alone: the same request gives the same
  /// bits whatever else runs, whatever is cached and on any number of threads (FP32 models run on one). Costs what
  /// batching gains. No speculation.
  bool batch_invariant = false;
  int64_t lookup_tokens = 0;           // guesses from the request's own text, at a time; 0: none
  const LoadedModel* draft = nullptr;  // guesses; must outlive the engine
  int64_t draft_tokens = 4;            // at a time
};

/// Blocks of one of the cache's pools.
struct PoolStats {
  int64_t used = 0, cached = 0, capacity = 0;
  int64_t block_bytes = 0;
};

struct EngineStats {
  int64_t steps = 0, rows = 0;  // rows of the model that were run
  int64_t running = 0, waiting = 0;
  int64_t prompt_tokens = 0, reused_tokens = 0;  // of requests that have started; from the cache
  int64_t generated_tokens = 0;
  int64_t embedded_tokens = 0;
  int64_t drafted_tokens = 0, accepted_tokens = 0;
  int64_t preemptions = 0, evictions = 0;  // evicted blocks, both pools
  int64_t used_blocks = 0, cached_blocks = 0, capacity_blocks = 0;
  int64_t used_bytes = 0, cached_bytes = 0, capacity_bytes = 0;
  PoolStats global, chunk;                          // what is above, by pool
  ExpertRows expert_rows;                           // that were run
  std::optional<experts::StoreStatistics> experts;  // where experts stay in their file
};

class Engine {
 public:
  /// `loaded` must outlive the engine. Throws UsageError for options out of range, Error for a draft model that does
  /// not fit.
  Engine(const LoadedModel& loaded, const EngineOptions& options);
  ~Engine();

  /// Queues a request. Throws Error for what could never run: a bad token, a prompt beyond the model's context or
  /// beyond the whole cache (with the size that would hold it), settings out of range.
  std::shared_ptr<Ticket> submit(Request request);
  /// Queues all of them, or throws as submit() does and queues none. `accepted`, when given, gets their tickets before
  /// any callback is called.
  using Tickets = std::vector<std::shared_ptr<Ticket>>;
  Tickets submit(std::vector<Request> requests, const std::function<void(const Tickets&)>& accepted = {});

  /// Queues texts to be made vectors of, between the steps of answers. Throws Error for what could never run.
  void embed(EmbeddingRequest request);

  /// An adapter for requests that name it, from the next step on. Rows of different adapters run one after the other.
  /// Throws Error for one that does not fit the model.
  std::shared_ptr<const RequestAdapter> add_adapter(checkpoint::Adapter adapter);
  /// The same from a PEFT directory.
  std::shared_ptr<const RequestAdapter> add_adapter(const std::filesystem::path& directory);

  /// EngineOptions::cache_bytes that hold one sequence of so many tokens.
  int64_t cache_bytes_for(int64_t tokens) const;

  /// Runs one step; false when there was nothing to do.
  bool step();
  /// Steps until the ticket is done. Rethrows its error.
  Response run(const Ticket& ticket);
  /// Steps, and sleeps while there is nothing to do, until asked to stop; what is then left ends as cancelled.
  void serve(std::stop_token stop);

  EngineStats stats() const;

  /// Saves what the cache holds of a prompt's prefix, exactly; returns its positions (whole blocks). Between steps.
  int64_t save_prefix(const Prompt& prompt, const std::filesystem::path& file);
  /// Puts a saved prefix into the cache and returns its positions. Throws Error for a file of another model or format,
  /// a damaged one, or one that does not fit.
  int64_t load_prefix(const std::filesystem::path& file);

  const LoadedModel& loaded() const { return loaded_; }
  const cache::CacheShape& shape() const { return blocks_.shape(); }

 private:
  std::shared_ptr<Job> job_of(Request request) const;
  bool step_once();
  void take_arrivals();
  void end_cancelled();
  void add_drafts(std::vector<StepEntry>& entries);
  void run_all(std::vector<StepEntry> entries);
  void run_entries(std::vector<StepEntry>& entries);
  StepRows rows_of(const StepEntry& entry) const;
  int64_t prompt_outputs(const StepEntry& entry) const;
  void take_logits(StepEntry& entry, const at::Tensor& logits_RV);
  static bool records_routing(const StepEntry& entry);
  void take_prompt_logits(StepEntry& entry, const at::Tensor& logits_RV);
  int64_t take_samples(StepEntry& entry, const at::Tensor& logits_RV);
  bool take_sample(Stream& stream, std::span<const float> logits);
  std::vector<Stream*> make_forks(Stream& stream);
  void report_prefill(Stream& stream);
  void end(Stream& stream, StopReason reason);
  void fail_job(Job& job, std::exception_ptr error);
  void finish_ended();
  void update_stats();
  int64_t context_limit() const;

  const LoadedModel& loaded_;
  const EngineOptions options_;
  const model::PageFormat format_;
  const model::PageBytes bytes_;
  cache::BlockManager blocks_;
  model::PagedCache pages_;
  Scheduler scheduler_;
  std::optional<DraftModel> draft_;
  Embedder embedder_;

  mutable std::mutex mutex_;  // of what follows
  std::condition_variable arrived_;
  std::vector<std::shared_ptr<Job>> arrivals_;
  std::vector<EmbeddingRequest> embeddings_;
  int64_t next_order_ = 0;
  EngineStats stats_;

  RequestAdapters adapters_;  // last: it wakes what is above
};

}  // namespace puna::engine
