#include "engine/engine.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/memory.h"

namespace puna::engine {
namespace {

constexpr int64_t kAlignedPiece = 64;                   // of batch-invariant prompts
constexpr int64_t kSequencesOnDevice = 8;               // usual ones, that a cache of unsaid size holds off the CPU
constexpr int64_t kLogitsElements = int64_t{64} << 20;  // of one step, when those of a prompt are wanted

void check_options(const EngineOptions& options) {
  const auto require = [](bool ok, const char* name, int64_t value, const char* range) {
    if (!ok) throw UsageError(name, fmt::format("is {}; it must be {}", value, range));
  };
  require(options.step_tokens >= 2, "step_tokens", options.step_tokens, "at least 2");
  require(options.max_sequences >= 1, "max_sequences", options.max_sequences, "at least 1");
  require(options.cache_bytes >= 0, "cache_bytes", options.cache_bytes, "0 or more");
  require(options.lookup_tokens >= 0 && options.lookup_tokens <= 64, "--speculate", options.lookup_tokens,
          "from 0 to 64 tokens");
  require(options.draft_tokens >= 1 && options.draft_tokens <= 64, "draft_tokens", options.draft_tokens,
          "from 1 to 64");
  if (options.batch_invariant && (options.lookup_tokens > 0 || options.draft))
    throw UsageError("--batch-invariant", "takes no speculation, whose passes differ with what is guessed");
}

int64_t bytes_of(const cache::CacheShape& shape, const model::PageBytes& bytes) {
  return shape.global_blocks * bytes.global + shape.chunk_blocks * bytes.chunk;
}

cache::CacheShape shape_of_one(const LoadedModel& loaded, int64_t tokens) {
  return shape_for(loaded.config().text, tokens, tokens);
}

// As many usual sequences as the budget holds, in fractions too; at least one, shorter where the usual does not fit.
cache::CacheShape shape_of(const LoadedModel& loaded, const EngineOptions& options, const model::PageBytes& bytes) {
  int64_t context = std::max<int64_t>(options.context_tokens, cache::kBlockTokens);
  const int64_t usual_bytes = bytes_of(shape_of_one(loaded, context), bytes);
  // On the CPU memory is taken as blocks are written; elsewhere at once.
  const int64_t by_itself = loaded.device.is_cpu() ? available_memory_bytes() / 2 : kSequencesOnDevice * usual_bytes;
  const int64_t budget = options.cache_bytes > 0 ? options.cache_bytes : by_itself;
  int64_t too_long = context + 1;
  if (usual_bytes > budget)
    for (too_long = context, context = 0; too_long - context > 1;) {
      const int64_t middle = context + (too_long - context) / 2;
      (bytes_of(shape_of_one(loaded, middle), bytes) <= budget ? context : too_long) = middle;
    }
  if (context < cache::kBlockTokens)
    fail("cache", "{} hold no sequence; {} hold one of {} tokens (--cache-memory)", format_bytes(budget),
         format_bytes(usual_bytes), options.context_tokens);
  cache::CacheShape shape = shape_of_one(loaded, context);
  const double sequences =
      static_cast<double>(budget) / static_cast<double>(std::max<int64_t>(bytes_of(shape, bytes), 1));
  const double most = std::numeric_limits<cache::BlockId>::max() / 2;
  for (int64_t* blocks : {&shape.global_blocks, &shape.chunk_blocks})
    *blocks = static_cast<int64_t>(std::min(most, static_cast<double>(*blocks) * sequences));
  return shape;
}

SchedulerOptions scheduler_options(const LoadedModel& loaded, const EngineOptions& options) {
  SchedulerOptions scheduler{options.step_tokens, options.max_sequences, 0, 0};
  scheduler.logprob_rows = std::max<int64_t>(kLogitsElements / loaded.config().text.vocab_size, 16);
  if (options.batch_invariant) {
    scheduler.aligned_piece = kAlignedPiece;
    scheduler.step_tokens = std::max(scheduler.step_tokens, 4 * kAlignedPiece);
  }
  return scheduler;
}

double milliseconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

}  // namespace

Engine::Engine(const LoadedModel& loaded, const EngineOptions& options)
    : loaded_(loaded),
      options_((check_options(options), options)),
      format_(model::PageFormat::of(loaded.dtype, loaded.device, options.int8_cache)),
      bytes_(model::page_bytes(loaded.config().text, format_)),
      blocks_(shape_of(loaded, options, bytes_)),
      pages_(loaded.config().text, format_, blocks_.shape().global_blocks, blocks_.shape().chunk_blocks),
      scheduler_(scheduler_options(loaded, options), blocks_),
      embedder_(loaded),
      adapters_(loaded, [this] {
        { const std::lock_guard lock(mutex_); }  // not between the look at has_changes() and the wait
        arrived_.notify_one();
      }) {
  stats_.expert_rows = no_expert_rows(loaded.config().text);
  if (options.draft) {
    const int64_t most = blocks_.shape().global_blocks * cache::kBlockTokens;
    draft_.emplace(*options.draft, loaded,
                   DraftOptions{.tokens = options.draft_tokens,
                                .step_tokens = options.step_tokens,
                                .cache_tokens = most,
                                .context_tokens = options.context_tokens});
  }
  update_stats();
}

Engine::~Engine() = default;

int64_t Engine::context_limit() const {
  const int64_t longest = loaded_.config().text.max_position_embeddings;
  return longest > 0 ? longest : std::numeric_limits<int64_t>::max();
}

int64_t Engine::cache_bytes_for(int64_t tokens) const {
  const cache::CacheShape own = shape_of_one(loaded_, tokens);
  if (tokens <= options_.context_tokens) return bytes_of(own, bytes_);
  // So many usual sequences that their part of each pool is enough.
  const cache::CacheShape usual = shape_of_one(loaded_, std::max<int64_t>(options_.context_tokens, 1));
  const auto share = [](int64_t blocks, int64_t of_one) {
    return static_cast<double>(blocks) / static_cast<double>(std::max<int64_t>(of_one, 1));
  };
  const double sequences =
      std::max(share(own.global_blocks, usual.global_blocks), share(own.chunk_blocks, usual.chunk_blocks));
  return static_cast<int64_t>(std::ceil(sequences * static_cast<double>(bytes_of(usual, bytes_)))) + 1;  // rounding
}

std::shared_ptr<Job> Engine::job_of(Request request) const {
  const auto total = static_cast<int64_t>(request.prompt.tokens.size());
  check_prompt(loaded_, request.prompt);
  if (total > context_limit())
    fail(loaded_.name, "the prompt has {} tokens and the model's context is {}; shorten the prompt", total,
         context_limit());
  if (total > blocks_.shape().longest()) {
    fail(loaded_.name,
         "the prompt has {} tokens and the cache holds {} positions of one sequence; a cache of {} would hold it "
         "(--cache-memory)",
         total, blocks_.shape().longest(), format_bytes(cache_bytes_for(total + 1)));
  }
  const int64_t least = request.prompt_logprobs >= 0 ? 0 : 1;
  if (request.max_tokens < least)
    throw UsageError("--max-tokens", fmt::format("is {}; it must be at least {}", request.max_tokens, least));
  if (request.completions < 1 || request.completions > options_.max_sequences)
    throw UsageError("--n", fmt::format("is {}; it must be from 1 to {}", request.completions, options_.max_sequences));
  if (request.prompt_logprobs > 100)
    throw UsageError("prompt_logprobs", fmt::format("is {}; it must be from 0 to 100", request.prompt_logprobs));
  validate(request.sampling);
  StopMatcher(request.stop_strings);              // refuses what it cannot match
  if (request.grammar) request.grammar->start();  // so does a grammar whose first states are too many
  auto job = std::make_shared<Job>();
  job->contents = content_keys(loaded_, request.prompt);
  // What the cache holds depends on the adapter, and names of prefixes begin with the first position.
  if (request.adapter) job->contents[0] += static_cast<uint64_t>(request.adapter->number) * 0x9E3779B97F4A7C15ull;
  job->num_open = request.completions;
  job->response.completions.resize(static_cast<size_t>(request.completions));
  job->request = std::move(request);
  job->ticket = std::make_shared<Ticket>();
  job->arrival = Clock::now();
  return job;
}

std::shared_ptr<Ticket> Engine::submit(Request request) {
  std::vector<Request> one;
  one.push_back(std::move(request));
  return submit(std::move(one)).front();
}

Engine::Tickets Engine::submit(std::vector<Request> requests, const std::function<void(const Tickets&)>& accepted) {
  std::vector<std::shared_ptr<Job>> jobs;
  Tickets tickets;
  for (Request& request : requests) {
    jobs.push_back(job_of(std::move(request)));
    tickets.push_back(jobs.back()->ticket);
  }
  if (accepted) accepted(tickets);
  {
    const std::lock_guard lock(mutex_);
    for (std::shared_ptr<Job>& job : jobs) {
      job->order = next_order_++;
      arrivals_.push_back(std::move(job));
      ++stats_.waiting;
    }
  }
  arrived_.notify_one();
  return tickets;
}

void Engine::embed(EmbeddingRequest request) {
  check(loaded_, request);
  {
    const std::lock_guard lock(mutex_);
    embeddings_.push_back(std::move(request));
  }
  arrived_.notify_one();
}

std::shared_ptr<const RequestAdapter> Engine::add_adapter(checkpoint::Adapter adapter) {
  return adapters_.add(std::move(adapter));
}

std::shared_ptr<const RequestAdapter> Engine::add_adapter(const std::filesystem::path& directory) {
  return add_adapter(checkpoint::open_adapter(directory, loaded_.config()));
}

void Engine::take_arrivals() {
  std::vector<std::shared_ptr<Job>> arrivals;
  std::vector<EmbeddingRequest> embeddings;
  {
    const std::lock_guard lock(mutex_);
    arrivals.swap(arrivals_);
    embeddings.swap(embeddings_);
  }
  adapters_.update();  // before the requests that ask for them
  for (EmbeddingRequest& request : embeddings) embedder_.add(std::move(request));
  for (std::shared_ptr<Job>& job : arrivals) {
    const bool forks = job->request.completions > 1;
    auto stream = std::make_unique<Stream>(std::move(job), 0, loaded_.tokenizer);
    stream->forks = forks;
    scheduler_.add(std::move(stream));
  }
}

void Engine::end_cancelled() {
  const auto now = Clock::now();
  for (const auto& stream : scheduler_.streams()) {
    if (stream->ended) continue;
    const Job& job = *stream->job;
    if (job.ticket->cancelled_ || (job.request.cancel && *job.request.cancel))
      end(*stream, StopReason::kCancelled);
    else if (job.request.deadline && now >= *job.request.deadline)
      end(*stream, StopReason::kDeadline);
  }
  finish_ended();
}

void Engine::end(Stream& stream, StopReason reason) {
  if (stream.ended) return;
  stream.ended = true;
  Job& job = *stream.job;
  Generation& result = stream.result();
  result.reason = reason;
  const auto now = Clock::now();
  if (stream.started) {
    result.queue_ms = milliseconds(job.arrival, stream.start);
    result.prefill_ms = milliseconds(stream.start, stream.has_logits ? stream.first_logits : now);
    if (stream.has_logits) result.decode_ms = milliseconds(stream.first_logits, now);
  }
  if (!job.response.error) {
    try {
      stream.text.finish([&](std::string_view text) {
        result.text += text;
        if (job.request.on_text) job.request.on_text(stream.index, text);
      });
    } catch (...) {
      job.response.error = std::current_exception();
    }
  }
  if (stream.text.stopped()) {
    result.reason = StopReason::kStopString;
    result.stop = stream.text.stop();
  }
  if (draft_) draft_->release(stream);
}

void Engine::fail_job(Job& job, std::exception_ptr error) {
  if (!job.response.error) job.response.error = std::move(error);
  for (const auto& stream : scheduler_.streams())
    if (stream->job.get() == &job) end(*stream, StopReason::kCancelled);
}

// Takes out what has ended; whoever waits for it finds its blocks given back.
void Engine::finish_ended() {
  std::vector<std::shared_ptr<Job>> done;
  for (const auto& stream : scheduler_.streams()) {
    if (!stream->ended) continue;
    Job& job = *stream->job;
    // Completions that were never begun end with the one that they were to be made of.
    job.num_open -= stream->forks ? job.request.completions : 1;
    if (job.num_open == 0) done.push_back(stream->job);
  }
  scheduler_.remove_ended();
  update_stats();
  for (const std::shared_ptr<Job>& job : done) {
    if (job->request.on_done) {
      try {
        job->request.on_done(job->response);
      } catch (...) {
        job->response.error = std::current_exception();
      }
    }
    job->ticket->finish(std::move(job->response));
  }
}

Response Engine::run(const Ticket& ticket) {
  while (!ticket.done()) step();
  if (ticket.response().error) std::rethrow_exception(ticket.response().error);
  return ticket.response();
}

void Engine::serve(std::stop_token stop) {
  const std::stop_callback wake(stop, [&] {
    { const std::lock_guard lock(mutex_); }  // not between the look at `stop` and the sleep
    arrived_.notify_all();
  });
  while (!stop.stop_requested()) {
    if (step()) continue;
    std::unique_lock lock(mutex_);
    arrived_.wait(lock, [&] {
      return stop.stop_requested() || !arrivals_.empty() || !embeddings_.empty() || adapters_.has_changes();
    });
  }
  take_arrivals();
  for (const auto& stream : scheduler_.streams()) end(*stream, StopReason::kCancelled);
  finish_ended();
  embedder_.give_up();
}

void Engine::update_stats() {
  const model::PageBytes bytes = bytes_;
  const cache::BlockPool &global = blocks_.global(), &chunk = blocks_.chunk();
  const int64_t running = scheduler_.num_running();
  const auto pool = [](const cache::BlockPool& of, int64_t block_bytes) {
    return PoolStats{of.num_used(), of.num_cached(), of.capacity(), block_bytes};
  };
  const experts::ExpertStore* store = loaded_.model->expert_store();
  const std::lock_guard lock(mutex_);
  stats_.global = pool(global, bytes.global);
  stats_.chunk = pool(chunk, bytes.chunk);
  if (store) stats_.experts = store->statistics();
  stats_.running = running;
  stats_.waiting = std::ssize(scheduler_.streams()) - running + std::ssize(arrivals_);
  stats_.prompt_tokens = scheduler_.counts().prompt_tokens;
  stats_.reused_tokens = scheduler_.counts().reused_tokens;
  stats_.preemptions = scheduler_.counts().preemptions;
  stats_.evictions = global.evictions() + chunk.evictions();
  stats_.used_blocks = global.num_used() + chunk.num_used();
  stats_.cached_blocks = global.num_cached() + chunk.num_cached();
  stats_.capacity_blocks = global.capacity() + chunk.capacity();
  stats_.used_bytes = global.num_used() * bytes.global + chunk.num_used() * bytes.chunk;
  stats_.cached_bytes = global.num_cached() * bytes.global + chunk.num_cached() * bytes.chunk;
  stats_.capacity_bytes = global.capacity() * bytes.global + chunk.capacity() * bytes.chunk;
}

EngineStats Engine::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

}  // namespace puna::engine
