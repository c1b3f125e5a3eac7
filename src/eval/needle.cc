#include "eval/needle.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdlib>

#include "base/error.h"
#include "engine/generate.h"
#include "engine/sampler.h"
#include "eval/answer.h"
#include "text/utf8.h"

namespace puna::eval {
namespace {

using engine::LoadedModel;
using engine::TokenId;

constexpr std::array kNames = {"Ada",   "Bruno", "Clara", "David",  "Edith", "Felix",  "Greta",  "Henry",
                               "Irene", "Jacob", "Karen", "Louis",  "Maria", "Nadia",  "Oscar",  "Paula",
                               "Ralph", "Sarah", "Tomas", "Ursula", "Vera",  "Walter", "Yvonne", "Zoe"};
constexpr std::array kPlaces = {"The harbour", "The market", "The old mill", "The station", "The library",
                                "The garden",  "The school", "The bakery",   "The bridge",  "The museum"};
constexpr std::array kStates = {
    "was quiet",      "looked the same as before", "was full of people",    "opened a little late",
    "had a new roof", "smelled of rain",           "was closed for a week", "seemed larger than usual"};
constexpr std::array kTimes = {"in the morning", "on that day", "after the storm",  "in early spring",
                               "at noon",        "all winter",  "before the feast", "in the evening"};

class Draws {
 public:
  explicit Draws(uint64_t seed) : rng_(seed) {}
  int64_t below(int64_t end) { return static_cast<int64_t>(rng_.uniform() * static_cast<double>(end)); }
  template <size_t N>
  std::string pick(const std::array<const char*, N>& list) {
    return list[static_cast<size_t>(below(static_cast<int64_t>(N)))];
  }

 private:
  engine::CounterRng rng_;
};

// Every trial draws from a stream of its own.
uint64_t trial_seed(const NeedleOptions& options, int64_t length, double depth, int64_t trial) {
  uint64_t seed = options.seed;
  for (const uint64_t part :
       {static_cast<uint64_t>(length), static_cast<uint64_t>(std::llround(depth * 1000)), static_cast<uint64_t>(trial)})
    seed = (seed ^ part) * 0x9E3779B97F4A7C15ull + 0x632BE59BD9B4E019ull, seed ^= seed >> 29;
  return seed;
}

// At least `count` tokens of made-up sentences.
std::vector<TokenId> made_up_tokens(const LoadedModel& loaded, Draws& draws, int64_t count) {
  std::vector<TokenId> tokens;
  std::string text = fmt::format("{} {} {}.", draws.pick(kPlaces), draws.pick(kStates), draws.pick(kTimes));
  while (static_cast<int64_t>(tokens.size()) < count) {
    for (int i = 0; i < 100; ++i)
      text += fmt::format(" {} {} {}.", draws.pick(kPlaces), draws.pick(kStates), draws.pick(kTimes));
    const auto more = loaded.tokenizer->encode(text);
    tokens.insert(tokens.end(), more.begin(), more.end());
    text.clear();
  }
  return tokens;
}

// The end of the sentence that ends nearest to `at`; the text's ends count as such.
size_t nearest_sentence_end(std::string_view text, size_t at) {
  const auto is_end = [&](size_t i) {
    if (i == 0 || i == text.size()) return true;
    const char before = text[i - 1], next = text[i];
    return (before == '.' || before == '!' || before == '?') && (next == ' ' || next == '\n');
  };
  for (size_t distance = 0;; ++distance) {
    if (distance <= at && is_end(at - distance)) return at - distance;
    if (at + distance <= text.size() && is_end(at + distance)) return at + distance;
  }
}

// The fact between sentences, at `depth` percent of the text.
std::string hide(std::string_view text, const std::string& fact, double depth) {
  const auto at = static_cast<size_t>(std::llround(static_cast<double>(text.size()) * depth / 100));
  const size_t end = nearest_sentence_end(text, at);
  const std::string before(text.substr(0, end)), after(trim(text.substr(end)));
  return before + (before.empty() ? "" : " ") + fact + (after.empty() ? "" : " ") + after;
}

// The first `count` tokens of the haystack as text, without a character that is cut in two or white space at the end.
std::string first_tokens(const LoadedModel& loaded, std::span<const TokenId> haystack, int64_t count) {
  std::string text = loaded.tokenizer->decode(haystack.first(static_cast<size_t>(count)));
  if (text.size() - text::valid_utf8_prefix(text) < 4) text.resize(text::valid_utf8_prefix(text));
  return std::string(trim(text));
}

void check_options(const LoadedModel& loaded, const NeedleOptions& options) {
  const int64_t context = loaded.config().text.max_position_embeddings;
  if (options.trials < 1) throw UsageError("--trials", fmt::format("is {}; it must be at least 1", options.trials));
  for (const int64_t length : options.lengths)
    if (context > 0 && length > context - options.max_tokens)
      throw UsageError("--lengths", fmt::format("{} tokens and an answer of {} are over the model's context of {}",
                                                length, options.max_tokens, context));
  for (const double depth : options.depths)
    if (!(depth >= 0 && depth <= 100))
      throw UsageError("--depths", fmt::format("is {}; a depth is from 0 to 100 percent", depth));
}

}  // namespace

NeedleResult::Count NeedleResult::count(size_t length_index, size_t depth_index) const {
  Count count;
  for (const NeedleTrial& trial : trials) {
    if (trial.length_index != length_index || trial.depth_index != depth_index) continue;
    ++count.total;
    count.right += trial.right;
  }
  return count;
}

NeedleResult::Count NeedleResult::count() const {
  Count count{0, static_cast<int64_t>(trials.size())};
  for (const NeedleTrial& trial : trials) count.right += trial.right;
  return count;
}

NeedleMaker::NeedleMaker(const LoadedModel& loaded, const NeedleOptions& options)
    : loaded_(loaded), options_(options), haystack_(loaded.tokenizer->encode(options.haystack)) {}

Needle NeedleMaker::make(int64_t length, double depth, int64_t trial) const {
  Draws draws(trial_seed(options_, length, depth, trial));
  Needle needle;
  needle.name = draws.pick(kNames);
  needle.value = std::to_string(1000 + draws.below(9000));
  const std::string fact = fmt::format("The code of {} is {}.", needle.name, needle.value);
  const std::string question = fmt::format("\n\nWhat is the code of {}?", needle.name);
  const auto build = [&](std::string_view hay) {
    needle.text = hide(hay, fact, depth) + question;
    needle.prompt = engine::chat_prompt(loaded_, {{text::Role::kUser, {text::TextPart{needle.text}}, {}, false}}, {});
    return static_cast<int64_t>(needle.prompt.tokens.size());
  };
  int64_t wanted = length - build("");
  if (wanted < -kLengthTolerance)
    throw UsageError("--lengths", fmt::format("{} tokens are too few; fact and question alone take {}", length,
                                              needle.prompt.tokens.size()));
  const std::vector<TokenId> hay = options_.haystack.empty() ? made_up_tokens(loaded_, draws, length) : haystack_;
  // A cut can fall within a word, so that the count of tokens is near the one asked for only after some steps.
  for (int step = 0; step < 16 && wanted > 0; ++step) {
    if (wanted > static_cast<int64_t>(hay.size()))
      fail("--haystack", "has {} tokens, and a length of {} needs {}; give a longer text", hay.size(), length, wanted);
    const int64_t missing = length - build(first_tokens(loaded_, hay, wanted));
    if (missing == 0) break;
    wanted += missing;
  }
  const int64_t off = static_cast<int64_t>(needle.prompt.tokens.size()) - length;
  if (std::abs(off) > kLengthTolerance)
    fail("--haystack", "a prompt of {} tokens cannot be made of this text; it comes out {} off", length, off);
  return needle;
}

NeedleResult run_needle(const LoadedModel& loaded, const NeedleOptions& options) {
  check_options(loaded, options);
  const auto start = std::chrono::steady_clock::now();
  NeedleResult result;
  const NeedleMaker maker(loaded, options);
  const int64_t longest = *std::max_element(options.lengths.begin(), options.lengths.end());
  engine::Engine engine(loaded, engine::single_user_options(loaded, longest + options.max_tokens));
  engine::GenerateOptions generate;
  generate.sampling.temperature = 0;
  generate.max_tokens = options.max_tokens;
  generate.cancel = options.cancel;
  const auto run_trial = [&](size_t length, size_t depth, int64_t trial) {
    NeedleTrial out{length, depth, maker.make(options.lengths[length], options.depths[depth], trial), 0, "", false};
    const engine::Generation answer = engine::generate(engine, out.needle.prompt, generate);
    if (answer.reason == engine::StopReason::kCancelled) return false;
    out.answer = answer.text;
    out.right = contains_words(answer.text, out.needle.value);
    out.prompt_tokens = answer.prompt_tokens;
    out.needle.prompt = {};
    result.trials.push_back(std::move(out));
    if (options.on_progress) options.on_progress(static_cast<int64_t>(result.trials.size()));
    return true;
  };
  for (size_t length = 0; length < options.lengths.size() && !result.partial; ++length)
    for (size_t depth = 0; depth < options.depths.size() && !result.partial; ++depth)
      for (int64_t trial = 0; trial < options.trials && !result.partial; ++trial)
        result.partial = !run_trial(length, depth, trial);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace puna::eval
