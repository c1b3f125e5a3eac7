#include "eval/likelihood.h"

#include <cmath>

#include "base/error.h"

namespace puna::eval {
namespace {

// Tokens per pass when all of a pass's logits may be wanted: enough to be fast, 512 MiB at Llama 4's vocabulary.
constexpr int64_t kPieceTokens = 512;

}  // namespace

std::optional<double> log_likelihood(engine::Sequence& sequence, const engine::Prompt& prompt,
                                     std::span<const engine::TokenId> continuation, const std::atomic<bool>* cancel) {
  PUNA_CHECK(!continuation.empty(), "a continuation without tokens");
  engine::Prompt whole = prompt;
  whole.tokens.insert(whole.tokens.end(), continuation.begin(), continuation.end() - 1);
  const auto prompt_tokens = static_cast<int64_t>(prompt.tokens.size());
  double sum = 0;
  engine::PrefillOptions options;
  options.piece_tokens = kPieceTokens;
  options.cancel = cancel;
  options.logits_from = prompt_tokens - 1;
  options.on_logits = [&](int64_t first, const at::Tensor& logits_TV) {
    const auto vocab_size = static_cast<size_t>(logits_TV.size(1));
    for (int64_t row = 0; row < logits_TV.size(0); ++row) {
      const auto target = static_cast<size_t>(continuation[static_cast<size_t>(first + row + 1 - prompt_tokens)]);
      const std::span logits(logits_TV.const_data_ptr<float>() + row * logits_TV.size(1), vocab_size);
      const double logprob = static_cast<double>(logits[target]) - engine::log_sum_exp(logits);
      if (!std::isfinite(logprob)) fail("likelihood", "the logits at position {} are not finite", first + row);
      sum += logprob;
    }
  };
  if (!sequence.prefill(whole, options)) return std::nullopt;
  return sum;
}

}  // namespace puna::eval
