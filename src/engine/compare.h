// How far one model's predictions are from another's on a text: what quantising or converting did to the answers.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string_view>

#include "base/json.h"
#include "engine/loaded_model.h"
#include "engine/perplexity.h"

namespace puna::engine {

struct CompareOptions {
  LoadOptions reference, other;
  int64_t context = 8192;                             // tokens per window, as in PerplexityOptions
  std::filesystem::path scratch = ".";                // for logits that memory has no room for; nothing stays there
  const std::atomic<bool>* cancel = nullptr;          // looked at between pieces
  std::function<void(int64_t, int64_t)> on_progress;  // (tokens scored, tokens to score), of both models together
};

/// Over every token of the text that is scored, given the tokens before it in its window.
struct Comparison {
  int64_t tokens = 0;
  double mean_kl = 0;         // mean of KL(reference || other) of the next token, natural logarithm
  double p99_kl = 0;          // its 99th percentile
  double top1_agreement = 0;  // share of tokens where both have the same most likely one
  PerplexityResult reference, other;

  Json json() const;
};

/// Runs one model after the other, so that never more than one is in memory; the first one's logits are kept exactly,
/// as BF16 where they are such values, in memory or in an unnamed file in `scratch`. Throws Error before any model is
/// loaded when one of them does not fit, or when they have other vocabularies. nullopt when cancelled.
std::optional<Comparison> compare(std::string_view text, const CompareOptions& options);

}  // namespace puna::engine
