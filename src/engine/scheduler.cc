#include "engine/scheduler.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace puna::engine {

void Scheduler::add(std::unique_ptr<Stream> stream) {
  const auto place = std::upper_bound(streams_.begin(), streams_.end(), stream,
                                      [](const auto& a, const auto& b) { return a->before(*b); });
  streams_.insert(place, std::move(stream));
}

void Scheduler::remove_ended() {
  std::erase_if(streams_, [&](const std::unique_ptr<Stream>& stream) {
    if (stream->ended) blocks_.release(stream->blocks);
    return stream->ended;
  });
}

int64_t Scheduler::num_running() const {
  return std::count_if(streams_.begin(), streams_.end(), [](const auto& stream) { return stream->running; });
}

namespace {

constexpr int64_t kWorthWaiting = 64;  // positions

/// That a stream takes of those which run at once: one that will fork already has the places of its copies.
int64_t places_of(const Stream& stream) { return stream.forks ? stream.job->request.completions : 1; }

}  // namespace

int64_t Scheduler::reserved() const {
  int64_t places = 0;
  for (const auto& stream : streams_) places += stream->running ? places_of(*stream) : 0;
  return places;
}

Stream* Scheduler::last_running() const {
  const auto last =
      std::find_if(streams_.rbegin(), streams_.rend(), [](const auto& stream) { return stream->running; });
  return last == streams_.rend() ? nullptr : last->get();
}

// One that waits for its client before one that would run.
Stream* Scheduler::first_to_go() const {
  const auto waits = std::find_if(streams_.rbegin(), streams_.rend(),
                                  [](const auto& stream) { return stream->running && stream->paused; });
  return waits == streams_.rend() ? last_running() : waits->get();
}

bool Scheduler::any_paused() const {
  return std::any_of(streams_.begin(), streams_.end(), [](const auto& stream) { return stream->paused; });
}

void Scheduler::preempt(Stream& stream) {
  blocks_.release(stream.blocks);
  stream.running = false;
  ++counts_.preemptions;
  ++stream.result().preemptions;
}

// Takes what the cache has of the stream's past. Its last token always runs, for the logits.
void Scheduler::attach(Stream& stream) {
  const auto total = static_cast<int64_t>(stream.tokens.size());
  int64_t at_most = total - 1;
  if (stream.job->request.prompt_logprobs >= 0 && !stream.has_logits) at_most = 0;
  const int64_t piece = options_.aligned_piece;
  if (piece > 0) at_most = std::min(at_most, stream.job->prompt_tokens()) / piece * piece;
  for (;;) {
    blocks_.attach(stream.blocks, stream.contents, at_most);
    const int64_t length = stream.blocks.length;
    if (piece == 0 || length % piece == 0) return;
    blocks_.release(stream.blocks);
    at_most = length / piece * piece;
  }
}

// All of the stream as it is now, one position more, what running prompts still need, and one block for each that runs
// or will fork off.
bool Scheduler::fits(const Stream& stream) const {
  const cache::CacheShape& shape = blocks_.shape();
  const auto lacking = [&](const Stream& s, int64_t extra) {
    const auto tokens = static_cast<int64_t>(s.tokens.size()) + extra;
    const int64_t global = shape.global_blocks_of(tokens) - std::ssize(s.blocks.global);
    const int64_t chunk = shape.chunk_blocks_of(tokens) - std::ssize(s.blocks.chunk);
    const int64_t copies = places_of(s) - 1;
    return std::pair{std::max<int64_t>(global, 0) + copies, std::max<int64_t>(chunk, 0) + copies};
  };
  auto [global, chunk] = lacking(stream, 1);
  for (const auto& other : streams_) {
    if (!other->running) continue;
    const auto [g, c] = lacking(*other, 1);
    global += std::max<int64_t>(g, 1);
    chunk += shape.chunk_tokens > 0 ? std::max<int64_t>(c, 1) : 0;
  }
  return global <= blocks_.global().available() && (shape.chunk_tokens == 0 || chunk <= blocks_.chunk().available());
}

// Whether a stream that goes before this one is still to run much of the prompt that both have: once that is in the
// cache, this one takes it from there instead of running it too.
bool Scheduler::soon_shared(const Stream& stream) const {
  if (stream.job->request.prompt_logprobs >= 0 && !stream.has_logits) return false;
  for (const auto& other : streams_) {
    if (!other->running || other->paused || other->pending() <= 1 || !other->before(stream)) continue;
    const auto differ =
        std::mismatch(stream.contents.begin(), stream.contents.end(), other->contents.begin(), other->contents.end());
    int64_t common = std::min(differ.first - stream.contents.begin(), std::ssize(stream.contents) - 1);
    if (options_.aligned_piece > 0)
      common = std::min({common, stream.job->prompt_tokens(), share_below(*other, common)});
    if (common - other->blocks.length >= kWorthWaiting) return true;
  }
  return false;
}

void Scheduler::admit() {
  int64_t running = reserved();
  for (const auto& stream : streams_) {
    if (stream->running || stream->paused || soon_shared(*stream)) continue;
    const int64_t wanted = places_of(*stream);
    attach(*stream);
    // Pushes out streams of less priority until there is room; alone it always has.
    while (running > 0 && (running + wanted > options_.max_sequences || !fits(*stream))) {
      Stream* last = first_to_go();
      if (!last->paused && last->job->request.priority >= stream->job->request.priority) break;
      running -= places_of(*last);
      preempt(*last);
    }
    if (running > 0 && (running + wanted > options_.max_sequences || !fits(*stream))) {
      blocks_.release(stream->blocks);
      return;  // nobody overtakes: a long prompt would wait for ever
    }
    stream->running = true;
    running += wanted;
    if (stream->started) continue;
    stream->started = true;
    stream->start = Clock::now();
    stream->result().reused_tokens = stream->blocks.length;
    counts_.prompt_tokens += stream->job->prompt_tokens();
    counts_.reused_tokens += stream->blocks.length;
  }
}

// Rows that one entry may have: within one attention chunk, and within a piece where pieces are aligned.
int64_t Scheduler::piece_limit(const Stream& stream) const {
  int64_t limit = std::min(stream.pending(), blocks_.chunk_end(stream.blocks) - stream.blocks.length);
  if (stream.job->request.prompt_logprobs >= 0) limit = std::min(limit, options_.logprob_rows);
  if (options_.aligned_piece == 0) return limit;
  const int64_t length = stream.blocks.length, piece = options_.aligned_piece;
  const int64_t prompt = stream.job->prompt_tokens();
  if (length >= prompt) return 1;
  return std::min({limit, prompt - length, piece - length % piece});
}

int64_t Scheduler::share_below(const Stream& stream, int64_t end) const {
  if (options_.aligned_piece == 0) return end;
  return std::min(end, stream.job->prompt_tokens()) / options_.aligned_piece * options_.aligned_piece;
}

std::vector<StepEntry> Scheduler::choose() {
  for (const auto& stream : streams_) stream->paused = stream->job->request.paused && stream->job->request.paused();
  admit();
  ++step_;
  std::vector<Stream*> decode;
  std::vector<StepEntry> prompts;
  int64_t wanted = 0;
  for (const auto& stream : streams_) {
    if (!stream->running || stream->paused) continue;
    if (stream->pending() == 1) {
      decode.push_back(stream.get());
    } else {
      prompts.push_back({stream.get(), 0, {}});
      wanted += piece_limit(*stream);
    }
  }
  int64_t left = options_.step_tokens;
  const int64_t for_prompts = std::min(wanted, std::max<int64_t>(left / 4, 1));
  const auto decode_rows = static_cast<size_t>(std::max<int64_t>(left - for_prompts, 1));
  if (decode.size() > decode_rows) {
    std::stable_sort(decode.begin(), decode.end(), [](Stream* a, Stream* b) { return a->last_step < b->last_step; });
    decode.resize(decode_rows);
  }
  left -= std::ssize(decode);

  const auto give = [&](StepEntry& entry, int64_t share) {
    const int64_t limit = piece_limit(*entry.stream) - entry.rows;
    int64_t rows = std::min({limit, share, left});
    if (options_.aligned_piece > 0) rows = limit <= left ? limit : 0;  // a piece runs whole or not at all
    entry.rows += rows;
    left -= rows;
  };
  for (StepEntry& entry : prompts) give(entry, &entry == &prompts.back() ? left : std::max<int64_t>(left / 2, 1));
  for (StepEntry& entry : prompts) give(entry, left);
  std::vector<StepEntry> entries;
  for (Stream* stream : decode) entries.push_back({stream, 1, {}});
  for (StepEntry& entry : prompts)
    if (entry.rows > 0) entries.push_back(std::move(entry));
  for (const StepEntry& entry : entries) entry.stream->last_step = step_;
  return entries;
}

std::vector<StepEntry> Scheduler::place(std::vector<StepEntry> entries, std::vector<cache::BlockCopy>& copies,
                                        std::vector<Stream*>& full) {
  std::stable_sort(entries.begin(), entries.end(),
                   [](const StepEntry& a, const StepEntry& b) { return a.stream->before(*b.stream); });
  std::vector<StepEntry> placed;
  for (StepEntry& entry : entries) {
    Stream& stream = *entry.stream;
    while (stream.running) {
      const int64_t end = stream.blocks.length + entry.rows + std::ssize(entry.drafts);
      if (blocks_.extend(stream.blocks, end, copies)) {
        placed.push_back(std::move(entry));
        break;
      }
      if (!entry.drafts.empty()) {
        entry.drafts.clear();
        continue;
      }
      Stream* last = first_to_go();
      if (last == &stream && num_running() == 1) {
        full.push_back(&stream);
        break;
      }
      preempt(*last);
    }
  }
  return placed;
}

}  // namespace puna::engine
