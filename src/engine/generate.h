// The generation loop: prompt in, streamed text out.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/sampler.h"
#include "engine/sequence.h"
#include "grammar/grammar.h"

namespace puna::engine {

enum class StopReason { kStopToken, kStopString, kMaxTokens, kContextFull, kCancelled };
std::string_view stop_reason_name(StopReason reason);  // "stop_token", "stop_string", "length", "context", "cancelled"

struct GenerateOptions {
  SamplingParams sampling;
  int64_t max_tokens = 512;
  std::vector<std::string> stop_strings;
  bool ignore_stop_tokens = false;                          // benchmarks and golden continuations
  std::shared_ptr<const grammar::CompiledGrammar> grammar;  // of grammar_vocabulary(); absent: any text
  int64_t piece_tokens = 2048;
  const std::atomic<bool>* cancel = nullptr;  // looked at after every token and every prefill piece
  std::function<void(std::string_view)> on_text;
  std::function<void(int64_t, int64_t)> on_prefill;  // (tokens done, tokens to do)
};

struct Generation {
  std::string text;             // all that on_text was given; special tokens have no text
  std::vector<TokenId> tokens;  // a stop token is not among them
  std::vector<Sample> samples;  // one per token when logprobs are wanted
  StopReason reason = StopReason::kCancelled;
  std::string stop;  // the stop string, or the stop token's name
  int64_t prompt_tokens = 0;
  int64_t reused_tokens = 0;  // of the prompt, from the cache
  double prefill_ms = 0;
  double decode_ms = 0;  // from the first token's logits to the end

  double decode_tokens_per_second() const;
};

/// What grammars for this model are compiled with: its tokens, and its stop tokens as those that end a text.
std::shared_ptr<const grammar::Vocabulary> grammar_vocabulary(const LoadedModel& loaded);

/// Runs `prompt` on `sequence` and generates after it. The text of a stop string is never given out, wherever token and
/// piece boundaries fall.
Generation generate(const LoadedModel& loaded, Sequence& sequence, const Prompt& prompt,
                    const GenerateOptions& options);

}  // namespace puna::engine
