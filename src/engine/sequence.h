// One sequence in the model: its cache, what is in it, and how it advances.
#pragma once

#include <ATen/ATen.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/prompt.h"
#include "model/kv_cache.h"

namespace puna::engine {

struct PrefillOptions {
  int64_t piece_tokens = 2048;                        // tokens per forward pass
  int64_t logits_from = -1;                           // first position that on_logits is given; -1: none
  const std::atomic<bool>* cancel = nullptr;          // looked at between pieces
  std::function<void(int64_t, int64_t)> on_progress;  // (tokens done, tokens to do)
  /// Called for each piece that holds wanted positions, with the first of them and logits [positions, V] in FP32.
  std::function<void(int64_t, const at::Tensor&)> on_logits;
};

class Sequence {
 public:
  explicit Sequence(const LoadedModel& loaded);

  /// Makes the sequence exactly `prompt`, reusing what the cache shares with it (equal tokens and images), and returns
  /// the logits [V] after its last token; nullopt when cancelled. Throws Error when the prompt is longer than the
  /// model's context.
  std::optional<std::span<const float>> prefill(const Prompt& prompt, const PrefillOptions& options = {});

  /// Appends one token; the logits [V] after it, valid until the next call.
  std::span<const float> step(TokenId id);

  int64_t length() const { return static_cast<int64_t>(keys_.size()); }
  /// Tokens that the last prefill() took from the cache.
  int64_t reused_tokens() const { return reused_; }
  int64_t cache_bytes() const { return cache_->bytes(); }
  /// No further token fits.
  bool full() const { return length() >= limit_; }
  int64_t context_limit() const { return limit_; }
  void reset();

 private:
  int64_t reuse(const std::vector<uint64_t>& wanted, int64_t at_most);
  at::Tensor forward(std::span<const TokenId> tokens, const at::Tensor& features, int64_t first_row);

  const LoadedModel& loaded_;
  int64_t limit_;
  double flops_per_token_;
  std::unique_ptr<model::KvCache> cache_;
  std::vector<uint64_t> keys_;  // what each cached position holds: a token id, or a hash of image and row
  int64_t reused_ = 0;
  at::Tensor logits_;  // [V] FP32 on the CPU
};

}  // namespace puna::engine
