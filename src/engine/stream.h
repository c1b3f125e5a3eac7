// One completion on its way through the engine, and the request that it belongs to.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "cache/block_manager.h"
#include "engine/guide.h"
#include "engine/request.h"
#include "engine/text_out.h"

namespace puna::engine {

struct Job {
  Request request;
  std::shared_ptr<Ticket> ticket;
  std::vector<uint64_t> contents;  // of the prompt, one number per position
  int64_t order = 0;               // of arrival
  int64_t num_open = 0;            // completions that have not ended
  Response response;
  Clock::time_point arrival;

  int64_t prompt_tokens() const { return static_cast<int64_t>(request.prompt.tokens.size()); }
};

struct Stream {
  Stream(std::shared_ptr<Job> job, int index, std::shared_ptr<const text::Tokenizer> tokenizer);

  std::shared_ptr<Job> job;
  int index;  // of the completion
  bool running = false, ended = false;
  bool paused = false;                 // as the request said before this step
  bool forks = false;                  // completions 1 and on still have to be made of this one
  std::vector<TokenId> tokens;         // prompt and what came after
  std::vector<uint64_t> contents;      // of each, for the cache
  cache::SequenceBlocks blocks;        // blocks.length tokens have been run
  cache::SequenceBlocks draft_blocks;  // of the draft model
  Sampler sampler;
  Guide guide;
  TextOut text;
  int64_t last_step = -1;  // in which it ran
  bool started = false, has_logits = false;
  Clock::time_point start, first_logits;
  Generation& result() const { return job->response.completions[static_cast<size_t>(index)]; }

  int64_t pending() const { return static_cast<int64_t>(tokens.size()) - blocks.length; }
  /// Runs before the other: greater priority, then earlier arrival.
  bool before(const Stream& other) const;
  void push(TokenId id);
};

inline Stream::Stream(std::shared_ptr<Job> the_job, int the_index, std::shared_ptr<const text::Tokenizer> tokenizer)
    : job(std::move(the_job)),
      index(the_index),
      tokens(job->request.prompt.tokens),
      contents(job->contents),
      sampler([&] {
        SamplingParams params = job->request.sampling;
        params.seed += static_cast<uint64_t>(the_index);
        return params;
      }()),
      guide(job->request.grammar),
      text(std::move(tokenizer), job->request.stop_strings) {
  for (const TokenId id : tokens) sampler.observe(id);
  result().prompt_tokens = job->prompt_tokens();
}

inline bool Stream::before(const Stream& other) const {
  const int mine = job->request.priority, theirs = other.job->request.priority;
  if (mine != theirs) return mine > theirs;
  return job->order != other.job->order ? job->order < other.job->order : index < other.index;
}

inline void Stream::push(TokenId id) {
  tokens.push_back(id);
  contents.push_back(static_cast<uint64_t>(id));
}

}  // namespace puna::engine
