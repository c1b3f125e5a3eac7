// src/engine: from a loaded model to words: prompts, cache reuse, sampling, stop conditions, the generation loop.
// It knows one conversation at a time; terminals and files of text are src/cli, arithmetic is src/model.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_set>
#include <vector>

#include "text/tokenizer.h"

namespace puna::engine {

using text::TokenId;

/// How the next token is chosen. Applied in this order, as transformers does: repetition penalty, temperature, top-k,
/// top-p, min-p.
struct SamplingParams {
  double temperature = 0.6;       // 0: greedy, the lowest id among equal logits; else from 0.001
  double top_p = 0.9;             // least set of tokens whose probabilities reach it; 1: all
  int64_t top_k = 0;              // most probable tokens kept; 0: all
  double min_p = 0;               // tokens below min_p * (the greatest probability) are dropped
  double repetition_penalty = 1;  // logits of tokens seen: divided when positive, multiplied when negative
  uint64_t seed = 0;
  int logprobs = -1;  // alternatives to report; 0: the chosen token's alone; -1: none
};

/// Throws UsageError naming the parameter, its value and its range.
void validate(const SamplingParams& params);

struct TokenLogprob {
  TokenId id;
  double logprob;  // natural logarithm, of the model's own distribution: before penalty, temperature and cuts
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
  double uniform();

 private:
  uint64_t seed_;
  uint64_t draws_ = 0;
};

/// One block of Philox4x32-10; public for its known-answer test.
void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/// Chooses tokens of one sequence. The same seed and the same logits give the same tokens.
class Sampler {
 public:
  explicit Sampler(const SamplingParams& params);

  /// Tells the repetition penalty of a token of the prompt; sample() counts its own.
  void observe(TokenId id) {
    if (params_.repetition_penalty != 1) seen_.insert(id);
  }

  /// Chooses from logits [V]. Throws Error when one is NaN or +inf, or all are -inf.
  Sample sample(std::span<const float> logits);

 private:
  struct Candidate {
    double weight;  // proportional to the probability; the greatest is 1
    TokenId id;
  };
  TokenId draw(std::span<const float> logits, float max_logit);
  void keep_most_probable(double total);
  void report(std::span<const float> logits, Sample& sample) const;

  SamplingParams params_;
  CounterRng rng_;
  std::unordered_set<TokenId> seen_;
  std::vector<float> penalised_;       // [V], used with a penalty only
  std::vector<Candidate> candidates_;  // scratch
};

/// log(sum(exp(logits))) in double precision.
double log_sum_exp(std::span<const float> logits);

}  // namespace puna::engine
