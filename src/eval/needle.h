// Needle in a haystack: one fact hidden in a long text, by the length of the text and the depth of the fact.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/loaded_model.h"
#include "engine/prompt.h"
#include "eval/stats.h"

namespace puna::eval {

struct NeedleOptions {
  std::vector<int64_t> lengths = {512, 1024, 2048};   // tokens of the whole prompt
  std::vector<double> depths = {0, 25, 50, 75, 100};  // percent of the text that comes before the fact
  int64_t trials = 10;                                // per length and depth
  uint64_t seed = 0;                                  // of facts and sentences
  int64_t max_tokens = 32;
  std::string haystack;  // the text; empty: made-up sentences
  const std::atomic<bool>* cancel = nullptr;
  std::function<void(int64_t)> on_progress;  // trials done
};

/// One prompt: a fact such as "The code of Ada is 4821." between sentences, and the question for it at the end.
struct Needle {
  std::string name, value;
  std::string text;  // of the user's message
  engine::Prompt prompt;
};

struct NeedleTrial {
  size_t length_index, depth_index;
  Needle needle;  // without its prompt
  int64_t prompt_tokens;
  std::string answer;
  bool right;  // the value stands in the answer
};

struct NeedleResult {
  std::vector<NeedleTrial> trials;
  double seconds = 0;
  bool partial = false;

  struct Count {
    int64_t right = 0, total = 0;
  };
  Count count(size_t length_index, size_t depth_index) const;
  Count count() const;  // of all trials
};

/// How far the tokens of a prompt may be from the length asked for.
inline constexpr int64_t kLengthTolerance = 4;

/// Makes the prompts of the trials; `loaded` and `options` must outlive it.
class NeedleMaker {
 public:
  NeedleMaker(const engine::LoadedModel& loaded, const NeedleOptions& options);

  /// A prompt of `length` tokens within kLengthTolerance; the fact stands where a sentence ends. Throws an Error for a
  /// length too short for fact and question, and for a haystack too short for the length.
  Needle make(int64_t length, double depth, int64_t trial) const;

 private:
  const engine::LoadedModel& loaded_;
  const NeedleOptions& options_;
  std::vector<engine::TokenId> haystack_;  // of options.haystack
};

/// All trials, greedy. Throws UsageError for lengths with which prompt and answer would not fit in the model's context,
/// and depths outside 0 to 100.
NeedleResult run_needle(const engine::LoadedModel& loaded, const NeedleOptions& options);

}  // namespace puna::eval
