// Steps of the engine: rows into the model, logits into tokens.
#include <algorithm>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "engine/engine.h"
#include "engine/logprobs.h"
#include "engine/routing_record.h"
#include "ops/adapters.h"

namespace puna::engine {
namespace {

constexpr std::chrono::milliseconds kPause{2};  // where all wait for their clients

bool is_stop(const LoadedModel& loaded, TokenId id) {
  return std::binary_search(loaded.stop_tokens.begin(), loaded.stop_tokens.end(), id);
}

std::string token_name(const LoadedModel& loaded, TokenId id) {
  const bool known = loaded.tokenizer && id < loaded.tokenizer->vocab_size();
  return known ? std::string(loaded.tokenizer->token_bytes(id)) : std::to_string(id);
}

std::span<const float> row_of(const at::Tensor& logits_RV, int64_t row) {
  const int64_t V = logits_RV.size(1);
  return {logits_RV.const_data_ptr<float>() + row * V, static_cast<size_t>(V)};
}

}  // namespace

bool Engine::step() {
  try {
    return step_once();
  } catch (...) {
    // Nobody may wait for ever, or be called back after having been told: all that run end with this error.
    for (const auto& stream : scheduler_.streams()) fail_job(*stream->job, std::current_exception());
    finish_ended();
    return true;
  }
}

bool Engine::step_once() {
  const c10::InferenceMode guard;
  take_arrivals();
  end_cancelled();
  std::vector<StepEntry> entries = scheduler_.choose();
  add_drafts(entries);
  std::vector<cache::BlockCopy> copies;
  std::vector<Stream*> full;
  entries = scheduler_.place(std::move(entries), copies, full);
  for (Stream* stream : full) end(*stream, StopReason::kContextFull);
  for (const cache::BlockCopy& copy : copies) pages_.copy_block(copy.chunked, copy.from, copy.to);
  const bool ran = !entries.empty() || !full.empty();
  int64_t rows = 0;
  for (const StepEntry& entry : entries) rows += entry.rows + std::ssize(entry.drafts);
  run_all(std::move(entries));
  finish_ended();
  const bool embeds = embedder_.busy();
  if (embeds) {
    // They have the rows that answers leave, and a quarter of a step where those leave none.
    const int64_t least = std::max<int64_t>(options_.step_tokens / 4, 1);
    const int64_t embedded = embedder_.step(std::max(options_.step_tokens - rows, least));
    const std::lock_guard lock(mutex_);
    stats_.embedded_tokens += embedded;
  }
  if (!embeds && !ran && scheduler_.any_paused()) std::this_thread::sleep_for(kPause);
  return embeds || ran || !scheduler_.streams().empty();
}

// Those that one pass through the model can take together: with equal adapters, or each alone.
void Engine::run_all(std::vector<StepEntry> entries) {
  const auto number = [](const StepEntry& entry) {
    const auto& adapter = entry.stream->job->request.adapter;
    return adapter ? adapter->number : ops::LowRank::kAlways;
  };
  std::stable_sort(entries.begin(), entries.end(),
                   [&](const StepEntry& a, const StepEntry& b) { return number(a) < number(b); });
  for (size_t i = 0; i < entries.size();) {
    const int adapter = number(entries[i]);
    std::vector<StepEntry> together;
    do {
      together.push_back(std::move(entries[i++]));
    } while (i < entries.size() && !options_.batch_invariant && number(entries[i]) == adapter);
    const ops::ApplyingAdapter applying(adapter);
    run_entries(together);
  }
}

void Engine::add_drafts(std::vector<StepEntry>& entries) {
  if (!draft_ && options_.lookup_tokens == 0) return;
  int64_t room = options_.step_tokens;
  for (const StepEntry& entry : entries) room -= entry.rows;
  const auto decodes = [](const StepEntry& entry) {
    return entry.rows == 1 && entry.stream->pending() == 1 && entry.stream->has_logits;
  };
  const auto limit = [&](const StepEntry& entry) {
    const Stream& stream = *entry.stream;
    const int64_t generated = std::ssize(stream.tokens) - stream.job->prompt_tokens();
    return std::min({room, stream.job->request.max_tokens - generated - 1,
                     blocks_.chunk_end(stream.blocks) - stream.blocks.length - 1,
                     context_limit() - static_cast<int64_t>(stream.tokens.size())});
  };
  for (StepEntry& entry : entries) {
    if (options_.lookup_tokens == 0 || !decodes(entry)) continue;
    entry.drafts = guess_by_lookup(entry.stream->tokens, std::min(limit(entry), options_.lookup_tokens));
    room -= std::ssize(entry.drafts);
  }
  if (draft_) {
    try {
      draft_->guess(entries, room);
    } catch (const std::exception& error) {  // costs guesses, no answers
      spdlog::warn("the draft model failed: {}", error.what());
      for (StepEntry& entry : entries) {
        entry.drafts.clear();
        draft_->release(*entry.stream);
      }
    }
  }
  room = options_.step_tokens;
  for (StepEntry& entry : entries) {
    const int64_t most = std::max<int64_t>(limit(entry), 0);
    if (std::ssize(entry.drafts) > most) entry.drafts.resize(static_cast<size_t>(most));
    room -= entry.rows + std::ssize(entry.drafts);
  }
}

StepRows Engine::rows_of(const StepEntry& entry) const {
  const Stream& stream = *entry.stream;
  const Prompt& prompt = stream.job->request.prompt;
  const int64_t begin = stream.blocks.length, end = begin + entry.rows;
  StepRows rows;
  rows.tokens.assign(stream.tokens.begin() + begin, stream.tokens.begin() + end);
  rows.tokens.insert(rows.tokens.end(), entry.drafts.begin(), entry.drafts.end());
  rows.table = page_table(stream.blocks, begin);
  if (prompt.features.defined()) {
    const auto patch = static_cast<TokenId>(loaded_.config().image_token_id);
    const int64_t prompt_end = std::min(end, stream.job->prompt_tokens());
    for (int64_t p = begin; p < prompt_end; ++p)
      if (stream.tokens[static_cast<size_t>(p)] == patch) rows.image_rows.push_back(p - begin);
    if (!rows.image_rows.empty())
      rows.features = prompt.features.narrow(0, std::count(stream.tokens.begin(), stream.tokens.begin() + begin, patch),
                                             std::ssize(rows.image_rows));
  }
  for (int64_t row = 0; row < prompt_outputs(entry); ++row) rows.outputs.push_back(row);
  if (entry.rows == stream.pending())
    for (int64_t row = entry.rows - 1; row < std::ssize(rows.tokens); ++row) rows.outputs.push_back(row);
  return rows;
}

// Rows whose logits are those of a token of the prompt, when they are wanted.
int64_t Engine::prompt_outputs(const StepEntry& entry) const {
  const Stream& stream = *entry.stream;
  if (stream.job->request.prompt_logprobs < 0 || stream.has_logits) return 0;
  return std::clamp<int64_t>(stream.job->prompt_tokens() - 1 - stream.blocks.length, 0, entry.rows);
}

void Engine::run_entries(std::vector<StepEntry>& entries) {
  std::vector<StepRows> rows;
  std::vector<int64_t> first_output;
  int64_t outputs = 0, count = 0;
  for (const StepEntry& entry : entries) {
    rows.push_back(rows_of(entry));
    first_output.push_back(outputs);
    outputs += std::ssize(rows.back().outputs);
    count += std::ssize(rows.back().tokens);
  }
  std::vector<ops::Routing> routing;
  at::Tensor logits_RV;
  try {
    logits_RV = run_rows(loaded_, pages_, rows, options_.batch_invariant, &routing);
  } catch (...) {
    for (const StepEntry& entry : entries) fail_job(*entry.stream->job, std::current_exception());
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    ++stats_.steps;
    stats_.rows += count;
    add_expert_rows(stats_.expert_rows, routing);
  }
  int64_t first_row = 0;
  for (size_t i = 0; i < entries.size(); first_row += std::ssize(rows[i++].tokens)) {
    Job& job = *entries[i].stream->job;
    if (entries[i].stream->ended) continue;  // another completion of its request failed
    try {
      const auto wanted = static_cast<int64_t>(rows[i].outputs.size());
      take_logits(entries[i], wanted > 0 ? logits_RV.narrow(0, first_output[i], wanted) : at::Tensor());
      if (records_routing(entries[i])) {
        const int64_t begin = rows[i].table.length;  // guesses that were not kept lie beyond blocks.length
        job.request.routing->take(routing, first_row, begin, entries[i].stream->blocks.length - begin);
      }
    } catch (...) {
      fail_job(job, std::current_exception());
    }
  }
}

bool Engine::records_routing(const StepEntry& entry) {
  return entry.stream->job->request.routing && entry.stream->index == 0;
}

void Engine::take_logits(StepEntry& entry, const at::Tensor& logits_RV) {
  Stream& stream = *entry.stream;
  const int64_t before = stream.blocks.length, prompt_rows = prompt_outputs(entry);
  const bool complete = entry.rows == stream.pending();
  take_prompt_logits(entry, logits_RV);
  const auto commit = [&](int64_t end) {
    blocks_.commit(stream.blocks, stream.contents, end, scheduler_.share_below(stream, end));
  };
  if (!complete || entry.drafts.empty()) commit(before + entry.rows);
  if (!stream.has_logits) report_prefill(stream);
  if (!complete) return;
  const at::Tensor own_RV = logits_RV.narrow(0, prompt_rows, 1 + std::ssize(entry.drafts));
  if (!stream.has_logits) {
    stream.has_logits = true;
    stream.first_logits = Clock::now();
    for (Stream* fork : make_forks(stream)) take_sample(*fork, row_of(own_RV, 0));
  }
  const int64_t accepted = take_samples(entry, own_RV);
  if (!entry.drafts.empty()) commit(before + entry.rows + accepted);
}

void Engine::take_prompt_logits(StepEntry& entry, const at::Tensor& logits_RV) {
  Stream& stream = *entry.stream;
  const Request& request = stream.job->request;
  for (int64_t row = 0; row < prompt_outputs(entry); ++row) {
    if (stream.blocks.length + row < std::ssize(stream.job->response.prompt_samples)) continue;  // before a preemption
    const TokenId next = stream.tokens[static_cast<size_t>(stream.blocks.length + row + 1)];
    stream.job->response.prompt_samples.push_back(logprobs_of(row_of(logits_RV, row), next, request.prompt_logprobs));
  }
}

void Engine::report_prefill(Stream& stream) {
  const auto& on_prefill = stream.job->request.on_prefill;
  if (!on_prefill || stream.index > 0) return;
  const int64_t reused = stream.result().reused_tokens;
  on_prefill(stream.blocks.length - reused, static_cast<int64_t>(stream.tokens.size()) - reused);
}

std::vector<Stream*> Engine::make_forks(Stream& stream) {
  std::vector<Stream*> forks;
  if (!stream.forks) return forks;
  stream.forks = false;
  for (int i = 1; i < stream.job->request.completions; ++i) {
    auto fork = std::make_unique<Stream>(stream.job, i, loaded_.tokenizer);
    fork->blocks = blocks_.fork(stream.blocks);
    fork->running = fork->started = fork->has_logits = true;
    fork->start = stream.start;
    fork->first_logits = stream.first_logits;
    fork->result().reused_tokens = stream.result().reused_tokens;
    forks.push_back(fork.get());
    scheduler_.add(std::move(fork));
  }
  return forks;
}

// The sampler chooses at each row as if it had come alone; a guess is kept while it is what was chosen. Returns how
// many were.
int64_t Engine::take_samples(StepEntry& entry, const at::Tensor& logits_RV) {
  Stream& stream = *entry.stream;
  const auto guesses = static_cast<int64_t>(entry.drafts.size());
  int64_t accepted = 0;
  for (int64_t row = 0; row <= guesses; ++row) {
    if (!take_sample(stream, row_of(logits_RV, row))) break;
    if (row == guesses || stream.tokens.back() != entry.drafts[static_cast<size_t>(row)]) break;
    ++accepted;
  }
  stream.result().drafted_tokens += guesses;
  stream.result().accepted_tokens += accepted;
  const std::lock_guard lock(mutex_);
  stats_.drafted_tokens += guesses;
  stats_.accepted_tokens += accepted;
  return accepted;
}

// Chooses the next token; false when the stream has ended.
bool Engine::take_sample(Stream& stream, std::span<const float> logits) {
  const Request& request = stream.job->request;
  Generation& result = stream.result();
  if (request.max_tokens == 0) {
    end(stream, StopReason::kMaxTokens);
    return false;
  }
  if (stream.guide.must_end()) {
    end(stream, StopReason::kStopToken);
    return false;
  }
  Sample sample = stream.sampler.sample(logits, stream.guide.mask());
  const TokenId id = sample.id;
  stream.guide.accept(id);
  const auto& own_stops = request.stop_tokens;
  if ((!request.ignore_stop_tokens && is_stop(loaded_, id)) ||
      std::find(own_stops.begin(), own_stops.end(), id) != own_stops.end()) {
    result.stop = token_name(loaded_, id);
    end(stream, StopReason::kStopToken);
    return false;
  }
  result.tokens.push_back(id);
  const auto emit = [&](std::string_view text) {
    result.text += text;
    if (request.on_text) request.on_text(stream.index, text);
  };
  // The text that was held back belongs before a token that has none.
  const bool special = stream.text.is_special(id);
  if (special) stream.text.push(id, emit);
  if (request.on_token) request.on_token(stream.index, sample);
  if (request.sampling.logprobs >= 0) result.samples.push_back(std::move(sample));
  {
    const std::lock_guard lock(mutex_);
    ++stats_.generated_tokens;
  }
  stream.push(id);
  if (!special) stream.text.push(id, emit);
  if (stream.text.stopped())
    end(stream, StopReason::kStopString);
  else if (std::ssize(result.tokens) >= request.max_tokens)
    end(stream, StopReason::kMaxTokens);
  else if (std::ssize(stream.tokens) > context_limit())
    end(stream, StopReason::kContextFull);
  return !stream.ended;
}

}  // namespace puna::engine
