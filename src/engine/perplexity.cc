#include "engine/perplexity.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/error.h"
#include "engine/sequence.h"

namespace puna::engine {
namespace {

// Pieces whose FP32 logits take at most 256 MiB.
int64_t piece_for(int64_t vocab_size) { return std::clamp<int64_t>((int64_t{64} << 20) / vocab_size, 16, 2048); }

void add(PerplexityResult& result, int64_t position, double nll) {
  const auto bucket = static_cast<size_t>(std::bit_width(static_cast<uint64_t>(position)) - 1);
  if (result.by_position.size() <= bucket) result.by_position.resize(bucket + 1);
  result.by_position[bucket].tokens += 1;
  result.by_position[bucket].nll += nll;
  result.tokens += 1;
  result.nll += nll;
}

// Scores the window's tokens from `first_scored` on (an index into the window, at least 1); false when cancelled.
bool score_window(Sequence& sequence, const std::vector<TokenId>& window, int64_t first_scored, int64_t vocab_size,
                  PerplexityResult& result, const PerplexityOptions& options) {
  Prompt prompt;
  prompt.tokens = window;
  PrefillOptions prefill;
  prefill.piece_tokens = piece_for(vocab_size);
  prefill.logits_from = 0;
  prefill.cancel = options.cancel;
  prefill.on_logits = [&](int64_t first, const at::Tensor& logits_TV) {
    const at::Tensor normaliser_T = at::logsumexp(logits_TV, -1);
    const auto logits = logits_TV.accessor<float, 2>();
    const auto normaliser = normaliser_T.accessor<float, 1>();
    for (int64_t row = 0; row < logits_TV.size(0); ++row) {
      const int64_t target = first + row + 1;
      if (target < first_scored || target >= static_cast<int64_t>(window.size())) continue;
      const double nll = static_cast<double>(normaliser[row]) - logits[row][window[static_cast<size_t>(target)]];
      if (!std::isfinite(nll)) fail("perplexity", "the logits at position {} of a window are not finite", target - 1);
      add(result, target, nll);
    }
    const int64_t begin = std::max<int64_t>(0, first_scored - first - 1);
    const int64_t end = std::min(logits_TV.size(0), static_cast<int64_t>(window.size()) - first - 1);
    if (options.on_logits && begin < end) options.on_logits(logits_TV.narrow(0, begin, end - begin));
    if (options.on_progress) options.on_progress(result.tokens);
  };
  return sequence.prefill(prompt, prefill).has_value();
}

}  // namespace

double PerplexityResult::mean_nll() const { return tokens > 0 ? nll / static_cast<double>(tokens) : 0; }
double PerplexityResult::perplexity() const { return std::exp(mean_nll()); }

std::optional<PerplexityResult> perplexity(const LoadedModel& loaded, std::span<const TokenId> tokens,
                                           const PerplexityOptions& options) {
  const int64_t longest = loaded.config().text.max_position_embeddings;
  const int64_t context = longest > 0 ? std::min(options.context, longest) : options.context;
  if (context < 2) throw UsageError("--context", fmt::format("is {}; it must be at least 2", options.context));
  const auto bos = loaded.tokenizer ? loaded.tokenizer->special("<|begin_of_text|>") : std::nullopt;
  const int64_t room = context - (bos ? 1 : 0);  // text tokens per window
  const int64_t longest_stride = room - (bos ? 0 : 1);
  const int64_t stride = options.stride > 0 ? options.stride : longest_stride;
  if (options.stride < 0 || stride > longest_stride || stride < 1)
    throw UsageError("--stride",
                     fmt::format("is {}; it must be from 1 to {} with this --context", options.stride, longest_stride));
  const auto total = static_cast<int64_t>(tokens.size());
  if (total < (bos ? 1 : 2)) fail("--text", "has {} tokens; that is too few to score", total);

  PerplexityResult result;
  Sequence sequence(loaded);
  int64_t scored = bos ? 0 : 1;  // text tokens before this index are done
  while (scored < total) {
    const int64_t end = std::min(total, scored == 0 ? room : scored == 1 && !bos ? room : scored + stride);
    const int64_t begin = std::max<int64_t>(0, end - room);
    std::vector<TokenId> window(tokens.begin() + begin, tokens.begin() + end);
    if (bos) window.insert(window.begin(), *bos);
    if (!score_window(sequence, window, scored - begin + (bos ? 1 : 0), loaded.config().text.vocab_size, result,
                      options))
      return std::nullopt;
    scored = end;
  }
  return result;
}

}  // namespace puna::engine
