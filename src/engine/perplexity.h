// Perplexity of a text: the exact negative log-likelihood of each token, window by window.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "engine/loaded_model.h"

namespace puna::engine {

struct PerplexityOptions {
  int64_t context = 8192;                     // tokens per window, <|begin_of_text|> included
  int64_t stride = 0;                         // new tokens per window; 0: context - 1, windows do not overlap
  const std::atomic<bool>* cancel = nullptr;  // looked at between pieces
  std::function<void(int64_t)> on_progress;   // tokens scored so far
  /// Called in order with the logits [n, V] in FP32 that scored the next n tokens; n depends on windows and V alone.
  std::function<void(const at::Tensor&)> on_logits;
};

struct PerplexityResult {
  /// Sums over tokens whose position in their window lies in [2^i, 2^(i+1)).
  struct Bucket {
    int64_t tokens = 0;
    double nll = 0;  // sum, natural logarithm
  };
  std::vector<Bucket> by_position;
  int64_t tokens = 0;
  double nll = 0;  // sum

  double mean_nll() const;
  double perplexity() const;
};

/// Scores every token of `tokens` once; each window begins with <|begin_of_text|> where the vocabulary has it, else its
/// first token is not scored. Memory is that of one window's cache and one piece's logits. nullopt when cancelled.
std::optional<PerplexityResult> perplexity(const LoadedModel& loaded, std::span<const TokenId> tokens,
                                           const PerplexityOptions& options);

}  // namespace puna::engine
