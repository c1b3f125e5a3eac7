// Guesses of what comes next, which the model then checks in one pass. A guess costs work when it is wrong, never text:
// the model's own sampler chooses every token, and a guess is kept only where it chose the same.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/paged_step.h"
#include "engine/scheduler.h"

namespace puna::engine {

/// What followed the last time that the text ended as it does now: the longest match of 2 to 4 tokens, the latest of
/// equals. At most `count` tokens; none without a match.
std::vector<TokenId> guess_by_lookup(std::span<const TokenId> tokens, int64_t count);

struct DraftOptions {
  int64_t tokens = 4;          // guessed at a time, at most
  int64_t step_tokens = 512;   // rows of one pass of the draft model, at most
  int64_t cache_tokens = 0;    // positions that its cache holds
  int64_t context_tokens = 0;  // of a usual sequence
};

/// A smaller model that guesses, with a cache of its own.
class DraftModel {
 public:
  /// Throws Error when the two do not share their tokenizer.
  DraftModel(const LoadedModel& draft, const LoadedModel& target, const DraftOptions& options);

  /// Guesses for those entries that run one row; what the draft model has not yet read of a stream it reads first, as
  /// far as step_tokens go. Guesses its most probable tokens. `room` are the guesses that may be made in all.
  void guess(std::vector<StepEntry>& entries, int64_t room);
  void release(Stream& stream) { blocks_.release(stream.draft_blocks); }

 private:
  struct Guesser;
  bool read(Guesser& guesser, std::vector<StepRows>& rows, int64_t& left);

  const LoadedModel& loaded_;
  const DraftOptions options_;
  cache::BlockManager blocks_;
  model::PagedCache pages_;
};

/// Global and chunked blocks for `tokens` positions, for sequences of about `context` tokens each.
cache::CacheShape shape_for(const arch::TextConfig& config, int64_t tokens, int64_t context);

}  // namespace puna::engine
