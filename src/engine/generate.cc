#include "engine/generate.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "base/error.h"
#include "engine/stop_matcher.h"

namespace puna::engine {
namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// Text of the tokens so far, through the stream decoder and the stop matcher, to the result and the callback.
class TextOut {
 public:
  TextOut(const LoadedModel& loaded, const GenerateOptions& options, Generation& result)
      : tokenizer_(*loaded.tokenizer),
        decoder_(loaded.tokenizer),
        matcher_(options.stop_strings),
        options_(options),
        result_(result) {}

  void push(TokenId id) {
    const bool has_text = id < tokenizer_.vocab_size() && !tokenizer_.is_special(id);
    emit(matcher_.push(has_text ? decoder_.push(id) : decoder_.finish()));
  }
  void finish() {
    emit(matcher_.push(decoder_.finish()));
    emit(matcher_.finish());
  }
  bool stopped() const { return matcher_.matched() >= 0; }
  const std::string& stop() const { return matcher_.stop(matcher_.matched()); }

 private:
  void emit(const std::string& text) {
    if (text.empty()) return;
    result_.text += text;
    if (options_.on_text) options_.on_text(text);
  }

  const text::Tokenizer& tokenizer_;
  text::StreamDecoder decoder_;
  StopMatcher matcher_;
  const GenerateOptions& options_;
  Generation& result_;
};

bool is_stop(const LoadedModel& loaded, TokenId id) {
  return std::binary_search(loaded.stop_tokens.begin(), loaded.stop_tokens.end(), id);
}

// Where the text stands in its grammar, if there is one.
class Guide {
 public:
  explicit Guide(const GenerateOptions& options) {
    if (!options.grammar) return;
    state_ = options.grammar->start();
    mask_.resize(options.grammar->vocabulary().mask_words());
    has_end_tokens_ = !options.grammar->vocabulary().end_tokens().empty();
  }

  /// The tokens allowed next, as a mask; empty without a grammar.
  std::span<const uint64_t> mask() {
    if (state_) state_->mask(mask_);
    return mask_;
  }
  void accept(TokenId id) {
    if (state_ && !state_->accept(id)) PUNA_CHECK(false, "the grammar refuses token {} of its own mask", id);
  }
  /// Nothing can follow, and no token says so.
  bool must_end() const { return state_ && !has_end_tokens_ && state_->must_end(); }

 private:
  std::optional<grammar::GrammarState> state_;
  std::vector<uint64_t> mask_;
  bool has_end_tokens_ = false;
};

std::string token_name(const LoadedModel& loaded, TokenId id) {
  return id < loaded.tokenizer->vocab_size() ? std::string(loaded.tokenizer->token_bytes(id)) : std::to_string(id);
}

void decode(const LoadedModel& loaded, Sequence& sequence, std::span<const float> logits, Sampler& sampler,
            const GenerateOptions& options, Generation& result) {
  TextOut out(loaded, options, result);
  Guide guide(options);
  for (;;) {
    if (guide.must_end()) {
      result.reason = StopReason::kStopToken;
      break;
    }
    Sample sample = sampler.sample(logits, guide.mask());
    const TokenId id = sample.id;
    guide.accept(id);
    if (!options.ignore_stop_tokens && is_stop(loaded, id)) {
      result.reason = StopReason::kStopToken;
      result.stop = token_name(loaded, id);
      break;
    }
    result.tokens.push_back(id);
    if (options.sampling.logprobs >= 0) result.samples.push_back(std::move(sample));
    out.push(id);
    if (out.stopped()) break;
    result.reason = StopReason::kMaxTokens;
    if (static_cast<int64_t>(result.tokens.size()) >= options.max_tokens) break;
    result.reason = StopReason::kContextFull;
    if (sequence.full()) break;
    result.reason = StopReason::kCancelled;
    if (options.cancel && *options.cancel) break;
    logits = sequence.step(id);
  }
  if (!out.stopped()) out.finish();
  if (out.stopped()) result.reason = StopReason::kStopString, result.stop = out.stop();
}

}  // namespace

std::string_view stop_reason_name(StopReason reason) {
  switch (reason) {
    case StopReason::kStopToken:
      return "stop_token";
    case StopReason::kStopString:
      return "stop_string";
    case StopReason::kMaxTokens:
      return "length";
    case StopReason::kContextFull:
      return "context";
    case StopReason::kCancelled:
      return "cancelled";
  }
  return "";
}

double Generation::decode_tokens_per_second() const {
  return tokens.size() > 1 && decode_ms > 0 ? 1000.0 * static_cast<double>(tokens.size() - 1) / decode_ms : 0;
}

std::shared_ptr<const grammar::Vocabulary> grammar_vocabulary(const LoadedModel& loaded) {
  return grammar::Vocabulary::of(*loaded.tokenizer, loaded.stop_tokens,
                                 static_cast<size_t>(loaded.config().text.vocab_size));
}

Generation generate(const LoadedModel& loaded, Sequence& sequence, const Prompt& prompt,
                    const GenerateOptions& options) {
  if (options.max_tokens < 1)
    throw UsageError("--max-tokens", fmt::format("is {}; it must be at least 1", options.max_tokens));
  Sampler sampler(options.sampling);
  for (const TokenId id : prompt.tokens) sampler.observe(id);
  Generation result;
  result.prompt_tokens = static_cast<int64_t>(prompt.tokens.size());
  PrefillOptions prefill;
  prefill.piece_tokens = options.piece_tokens;
  prefill.cancel = options.cancel;
  prefill.on_progress = options.on_prefill;
  auto start = Clock::now();
  const auto logits = sequence.prefill(prompt, prefill);
  result.prefill_ms = milliseconds_since(start);
  result.reused_tokens = sequence.reused_tokens();
  if (!logits) return result;
  start = Clock::now();
  decode(loaded, sequence, *logits, sampler, options, result);
  result.decode_ms = milliseconds_since(start);
  return result;
}

}  // namespace puna::engine
