// Which rows of which streams the next step runs. Whole numbers and blocks alone: no tensor, no model.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cache/block_manager.h"
#include "engine/stream.h"

namespace puna::engine {

struct SchedulerOptions {
  int64_t step_tokens = 512;    // rows of a step at most, which bounds its time
  int64_t max_sequences = 256;  // that run at once
  int64_t aligned_piece = 0;    // > 0: prompts run in pieces that end at its multiples, what follows row by row
  int64_t logprob_rows = 0;     // of one entry at most, when the logits of the prompt are wanted
};

/// Part of a step: the next `rows` tokens of a stream, then guesses of what follows them.
struct StepEntry {
  Stream* stream;
  int64_t rows;
  std::vector<TokenId> drafts;
};

struct SchedulerCounts {
  int64_t preemptions = 0, prompt_tokens = 0, reused_tokens = 0;
};

class Scheduler {
 public:
  Scheduler(const SchedulerOptions& options, cache::BlockManager& blocks) : options_(options), blocks_(blocks) {}

  void add(std::unique_ptr<Stream> stream);
  /// Forgets the streams that have ended and gives their blocks back.
  void remove_ended();

  /// Chooses rows. Every stream that waits for one token gets it before prompts get what is left, of which they have a
  /// quarter for certain; when not all fit, those that ran least recently. The first prompt gets half of the rest, the
  /// next half of what then remains, and so on, so that none waits for another's end.
  std::vector<StepEntry> choose();

  /// Finds room for the rows and drafts, in order of priority and arrival: drops drafts, then preempts the last
  /// stream in that order. Streams for which there will never be room are left in `full`.
  std::vector<StepEntry> place(std::vector<StepEntry> entries, std::vector<cache::BlockCopy>& copies,
                               std::vector<Stream*>& full);

  /// The end of blocks that others may share, for a stream that has run `end` tokens.
  int64_t share_below(const Stream& stream, int64_t end) const;

  const std::vector<std::unique_ptr<Stream>>& streams() const { return streams_; }
  int64_t num_running() const;
  bool any_paused() const;
  const SchedulerCounts& counts() const { return counts_; }
  const SchedulerOptions& options() const { return options_; }

 private:
  void admit();
  int64_t reserved() const;  // of max_sequences
  bool fits(const Stream& stream) const;
  bool soon_shared(const Stream& stream) const;
  void attach(Stream& stream);
  void preempt(Stream& stream);
  Stream* last_running() const;
  Stream* first_to_go() const;
  int64_t piece_limit(const Stream& stream) const;

  const SchedulerOptions options_;
  cache::BlockManager& blocks_;
  std::vector<std::unique_ptr<Stream>> streams_;  // in order of Stream::before
  SchedulerCounts counts_;
  int64_t step_ = 0;
};

}  // namespace puna::engine
