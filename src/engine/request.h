// What the engine is asked, and what it answers.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/adapters.h"
#include "engine/prompt.h"
#include "engine/sampler.h"
#include "grammar/grammar.h"

namespace puna::engine {

class RoutingRecord;
using Clock = std::chrono::steady_clock;

enum class StopReason { kStopToken, kStopString, kMaxTokens, kContextFull, kCancelled, kDeadline };
/// "stop_token", "stop_string", "length", "context", "cancelled", "deadline"
std::string_view stop_reason_name(StopReason reason);

/// One completion.
struct Generation {
  std::string text;             // all that on_text was given; special tokens have no text
  std::vector<TokenId> tokens;  // a stop token is not among them
  std::vector<Sample> samples;  // one per token when logprobs are wanted
  StopReason reason = StopReason::kCancelled;
  std::string stop;  // the stop string, or the stop token's name
  int64_t prompt_tokens = 0;
  int64_t reused_tokens = 0;  // of the prompt, from the cache
  int64_t drafted_tokens = 0, accepted_tokens = 0;
  int64_t preemptions = 0;
  double queue_ms = 0;    // from arrival to the first step
  double prefill_ms = 0;  // from there to the first token's logits
  double decode_ms = 0;   // from there to the end

  double decode_tokens_per_second() const;
};

struct Response {
  std::vector<Generation> completions;
  std::vector<Sample> prompt_samples;  // of the prompt's tokens from the second on, when wanted
  std::exception_ptr error;            // what went wrong with this request alone; null: nothing
};

struct Request {
  Prompt prompt;
  SamplingParams sampling;   // completion i draws with seed + i
  int64_t max_tokens = 512;  // 0 with prompt_logprobs alone
  std::vector<std::string> stop_strings;
  std::vector<TokenId> stop_tokens;                         // beside the model's own
  bool ignore_stop_tokens = false;                          // benchmarks and golden continuations
  std::shared_ptr<const grammar::CompiledGrammar> grammar;  // of grammar_vocabulary(); absent: any text
  std::shared_ptr<const RequestAdapter> adapter;            // of Engine::add_adapter(); absent: none of those
  int completions = 1;
  int prompt_logprobs = -1;                // alternatives per token of the prompt; 0: the tokens' own alone; -1: none
  int priority = 0;                        // greater ones run first, and push out smaller ones when room is lacking
  std::shared_ptr<RoutingRecord> routing;  // filled for the first completion, until the request is done; absent: not
  std::optional<Clock::time_point> deadline;  // what there is by then is the answer
  /// Asked before each step; while it says true the request waits, and gives its place to others that need it.
  std::function<bool()> paused;
  const std::atomic<bool>* cancel = nullptr;  // looked at in every step, beside Ticket::cancel()
  // Called by the thread that steps. An exception ends the request, which is its error.
  std::function<void(int, const Sample&)> on_token;    // completion, each token that is no stop, before its text
  std::function<void(int, std::string_view)> on_text;  // completion, text
  std::function<void(int64_t, int64_t)> on_prefill;    // (tokens done, tokens to do)
  std::function<void(const Response&)> on_done;
};

/// A request on its way. Everything may be called from any thread.
class Ticket {
 public:
  /// The request ends at the next step, with what there is.
  void cancel() { cancelled_ = true; }
  bool done() const { return done_; }
  /// Blocks until the thread that steps is done with it.
  const Response& wait() const;
  /// Once done() is true.
  const Response& response() const { return response_; }

 private:
  friend class Engine;
  void finish(Response response);

  Response response_;
  std::atomic<bool> cancelled_ = false, done_ = false;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
};

}  // namespace puna::engine
