// src/engine: from a loaded model to words: prompts, cache reuse, sampling, stop conditions, the generation loop.
// It knows one conversation at a time; terminals and files of text are src/cli, arithmetic is src/model.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "text/tokenizer.h"

namespace puna::engine {

using text::TokenId;

/// How the next token is chosen (docs/SAMPLING.md has the formulas). In this order: logit bias, repetition, frequency
/// and presence penalty, the grammar's mask, temperature, top-k, top-p, min-p, typical; the last five as transformers.
struct SamplingParams {
  double temperature = 0.6;                   // 0: greedy, the lowest id among equal logits; else from 0.001
  double top_p = 0.9;                         // least set of tokens whose probabilities reach it; 1: all
  int64_t top_k = 0;                          // most probable tokens kept; 0: all
  double min_p = 0;                           // tokens below min_p * (the greatest probability) are dropped
  double typical_p = 1;                       // least set of tokens of most typical information that reaches it; 1: all
  double repetition_penalty = 1;              // logits of tokens seen: divided when positive, multiplied when negative
  double frequency_penalty = 0;               // taken off a logit for each time that its token was generated
  double presence_penalty = 0;                // taken off once for tokens that were generated
  std::map<TokenId, double> logit_bias = {};  // added to logits; -inf: never
  uint64_t seed = 0;
  int logprobs = -1;  // alternatives to report; 0: the chosen token's alone; -1: none
};

/// Throws UsageError naming the parameter, its value and its range.
void validate(const SamplingParams& params);

struct TokenLogprob {
  TokenId id;
  double logprob;  // natural logarithm, of the model's own distribution: before bias, penalties, mask and cuts
};

struct Sample {
  TokenId id;
  double logprob;                 // NaN when params.logprobs < 0
  std::vector<TokenLogprob> top;  // params.logprobs of them, most probable first
};

/// Philox4x32-10 (Salmon et al. 2011): the n-th draw is a function of (seed, n) alone, the same on every machine.
class CounterRng {
 public:
  explicit CounterRng(uint64_t seed) : seed_(seed) {}
  /// Uniform in [0, 1), 53 bits.
  double uniform() { return at(seed_, draws_++); }
  static double at(uint64_t seed, uint64_t draw);

 private:
  uint64_t seed_;
  uint64_t draws_ = 0;
};

/// One block of Philox4x32-10; public for its known-answer test.
void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/// Chooses tokens of one sequence. The same seed and the same logits give the same tokens: the n-th choice depends on
/// (seed, n) alone, whatever else runs. A copy goes on by itself.
class Sampler {
 public:
  explicit Sampler(const SamplingParams& params);

  /// Tells the repetition penalty of a token of the prompt; generated ones are told by sample() or accept().
  void observe(TokenId id);
  /// Counts a token that was generated without sample(): checked drafts, bytes that a grammar forces.
  void accept(TokenId id);

  /// Chooses from logits [V]. `mask` holds a bit per token, in 64-bit words; empty: all are allowed. Throws Error when
  /// a logit is NaN or +inf, or no allowed token has one above -inf.
  Sample sample(std::span<const float> logits, std::span<const uint64_t> mask = {});

  /// The probabilities [V] that sample() would draw from, in FP32; valid until the next call. For checking drafts.
  std::span<const float> distribution(std::span<const float> logits, std::span<const uint64_t> mask = {});

 private:
  /// Logits after bias, penalties and mask, in logits_; the lowest id of the greatest.
  size_t adjust(std::span<const float> logits, std::span<const uint64_t> mask);
  /// Weights proportional to the probabilities after all filters, in weights_; their sum.
  double weigh(float max_logit);
  TokenId draw(double total) const;
  void report(std::span<const float> logits, Sample& sample) const;

  SamplingParams params_;
  uint64_t step_ = 0;
  std::map<TokenId, int64_t> seen_;  // times generated; 0: in the prompt alone
  std::vector<float> logits_;        // [V]
  std::vector<float> weights_;       // [V]
};

/// log(sum(exp(logits))) in double precision.
double log_sum_exp(std::span<const float> logits);

}  // namespace puna::engine
