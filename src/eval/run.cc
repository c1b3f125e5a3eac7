#include "eval/run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "engine/generate.h"
#include "engine/perplexity.h"
#include "eval/answer.h"
#include "eval/likelihood.h"

namespace puna::eval {
namespace {

using engine::LoadedModel;
using engine::TokenId;

engine::EncodedImage encode_image(const LoadedModel& loaded, const ImageSource& source) {
  if (!source.file.empty()) return engine::encode_image_file(loaded, source.file);
  const auto bytes = std::as_bytes(std::span(source.bytes));
  return engine::encode_image(loaded, io::decode_image(bytes, "an image's data"));
}

// The prompt of a bare text without the white space at its end, which tokenizers join to the next word; `moved` gets
// it.
engine::Prompt text_prompt(const LoadedModel& loaded, std::string text, std::string& moved) {
  const size_t end = text.find_last_not_of(" \t\n\r") + 1;
  moved = text.substr(end);
  text.resize(end);
  return engine::raw_prompt(loaded, text);
}

engine::Prompt chat_prompt(const LoadedModel& loaded, const Item& item) {
  engine::check_images(loaded, item.images.size());
  std::vector<engine::EncodedImage> images;
  for (const ImageSource& source : item.images) images.push_back(encode_image(loaded, source));
  return engine::chat_prompt(loaded, item.messages, images);
}

const std::string& raw_text(const Item& item) {
  static const std::string empty;
  const auto& parts = item.messages.front().parts;
  return parts.empty() ? empty : std::get<text::TextPart>(parts.front()).text;
}

size_t index_of_greatest(const std::vector<double>& values) {
  return static_cast<size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

class Runner {
 public:
  Runner(const LoadedModel& loaded, const Task& task, const RunOptions& options)
      : loaded_(loaded),
        task_(task),
        options_(options),
        sequence_(loaded),
        engine_(loaded, engine::single_user_options(loaded)) {}

  void run(std::vector<Outcome>& outcomes) {
    for (const Item& item : task_.items) {
      if (cancelled()) break;
      std::optional<Outcome> outcome = run_item(item, outcomes.size());
      if (!outcome) break;
      outcomes.push_back(std::move(*outcome));
      if (options_.on_progress) options_.on_progress(static_cast<int64_t>(outcomes.size()));
    }
  }

 private:
  bool cancelled() const { return options_.cancel && *options_.cancel; }

  // nullopt when cancelled
  std::optional<Outcome> run_item(const Item& item, uint64_t number) try {
    Outcome outcome;
    outcome.item = &item;
    const bool done = item.kind() == Kind::kPerplexity       ? score_text(item, outcome)
                      : item.kind() == Kind::kMultipleChoice ? score_choices(item, outcome)
                                                             : answer(item, number, outcome);
    return done ? std::optional(std::move(outcome)) : std::nullopt;
  } catch (const Error& error) {
    throw Error(task_.place(item), error.what());
  }

  bool score_text(const Item& item, Outcome& outcome) {
    const std::vector<TokenId> tokens = loaded_.tokenizer->encode(item.text);
    engine::PerplexityOptions options;
    options.context = task_.context;
    options.cancel = options_.cancel;
    const auto result = engine::perplexity(loaded_, tokens, options);
    if (!result) return false;
    outcome.nll = result->nll;
    outcome.tokens = result->tokens;
    outcome.bytes = static_cast<int64_t>(item.text.size());
    // Without <|begin_of_text|> nothing predicts the first token.
    if (result->tokens < static_cast<int64_t>(tokens.size()))
      outcome.bytes -= static_cast<int64_t>(loaded_.tokenizer->token_bytes(tokens.front()).size());
    return true;
  }

  bool score_choices(const Item& item, Outcome& outcome) {
    std::string moved;
    const engine::Prompt prompt =
        item.settings.chat ? chat_prompt(loaded_, item) : text_prompt(loaded_, raw_text(item), moved);
    std::vector<double> per_byte;
    for (const std::string& choice : item.choices) {
      const auto tokens = loaded_.tokenizer->encode(moved + choice);
      const auto sum = log_likelihood(sequence_, prompt, tokens, options_.cancel);
      if (!sum) return false;
      outcome.log_likelihoods.push_back(*sum);
      per_byte.push_back(*sum / static_cast<double>(choice.size()));
    }
    const size_t raw = index_of_greatest(outcome.log_likelihoods), normalised = index_of_greatest(per_byte);
    outcome.right_raw = raw == item.right_choice;
    outcome.right_per_byte = normalised == item.right_choice;
    outcome.right = item.settings.per_byte_choices ? outcome.right_per_byte : outcome.right_raw;
    outcome.answer = item.choices[item.settings.per_byte_choices ? normalised : raw];
    return true;
  }

  bool answer(const Item& item, uint64_t number, Outcome& outcome) {
    const engine::Prompt prompt =
        item.settings.chat ? chat_prompt(loaded_, item) : engine::raw_prompt(loaded_, raw_text(item));
    engine::GenerateOptions options;
    options.sampling.temperature = options_.temperature;
    options.sampling.top_p = 1;
    options.sampling.seed = options_.seed + number;
    options.sampling.logprobs = 0;
    options.max_tokens = item.settings.max_tokens;
    options.stop_strings = item.settings.stop;
    options.cancel = options_.cancel;
    const engine::Generation generation = engine::generate(engine_, prompt, options);
    if (generation.reason == engine::StopReason::kCancelled) return false;
    outcome.answer = generation.text;
    outcome.tokens = static_cast<int64_t>(generation.tokens.size());
    double sum = 0;
    for (const engine::Sample& sample : generation.samples) sum += sample.logprob;
    outcome.log_likelihoods = {sum};
    outcome.right = grade(item, generation.text);
    return true;
  }

  const LoadedModel& loaded_;
  const Task& task_;
  const RunOptions& options_;
  engine::Sequence sequence_;  // of likelihoods
  engine::Engine engine_;      // of answers
};

Measure accuracy(const std::string& name, const std::vector<Outcome>& outcomes, bool Outcome::*right) {
  const auto total = static_cast<int64_t>(outcomes.size());
  const int64_t count = std::count_if(outcomes.begin(), outcomes.end(), [&](const Outcome& o) { return o.*right; });
  return {name, static_cast<double>(count) / static_cast<double>(total), wilson(count, total)};
}

std::vector<Measure> perplexity_measures(const std::vector<Outcome>& outcomes, uint64_t seed) {
  std::vector<double> bits, bytes, tokens;
  for (const Outcome& outcome : outcomes) {
    if (outcome.bytes == 0 || outcome.tokens == 0) continue;
    bits.push_back(outcome.nll / std::numbers::ln2);
    bytes.push_back(static_cast<double>(outcome.bytes));
    tokens.push_back(static_cast<double>(outcome.tokens));
  }
  if (bits.empty()) return {};
  const auto sum = [](const std::vector<double>& values) {
    double total = 0;
    for (const double value : values) total += value;
    return total;
  };
  const auto measure = [&](const char* name, const std::vector<double>& per) -> Measure {
    std::optional<Interval> interval;
    if (bits.size() > 1) interval = bootstrap_ratio(bits, per, seed);
    return {name, sum(bits) / sum(per), interval};
  };
  const Measure per_token = measure("bits_per_token", tokens);
  Measure perplexity = {"perplexity", std::exp2(per_token.value), std::nullopt};
  if (per_token.interval)
    perplexity.interval = {std::exp2(per_token.interval->low), std::exp2(per_token.interval->high)};
  return {measure("bits_per_byte", bytes), per_token, perplexity};
}

std::vector<Measure> measures_of(const Task& task, const std::vector<Outcome>& outcomes, uint64_t seed) {
  if (outcomes.empty()) return {};
  if (task.is_perplexity()) return perplexity_measures(outcomes, seed);
  std::vector<Measure> measures = {accuracy("accuracy", outcomes, &Outcome::right)};
  const bool all_choices = std::all_of(outcomes.begin(), outcomes.end(),
                                       [](const Outcome& o) { return o.item->kind() == Kind::kMultipleChoice; });
  if (!all_choices) return measures;
  measures.push_back(accuracy("accuracy_raw", outcomes, &Outcome::right_raw));
  measures.push_back(accuracy("accuracy_normalised", outcomes, &Outcome::right_per_byte));
  return measures;
}

}  // namespace

std::optional<bool> TaskResult::met() const {
  if (!task->threshold || measures.empty()) return std::nullopt;
  const double value = measures.front().value;
  return task->is_perplexity() ? value <= *task->threshold : value >= *task->threshold;
}

TaskResult run_task(const LoadedModel& loaded, const Task& task, const RunOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  TaskResult result;
  result.task = &task;
  try {
    Runner(loaded, task, options).run(result.outcomes);
  } catch (const Error&) {
    result.error = std::current_exception();
  }
  result.measures = measures_of(task, result.outcomes, options.seed);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

void check_fits(const LoadedModel& loaded, const Task& task) {
  const int64_t context = loaded.config().text.max_position_embeddings;
  for (const Item& item : task.items) {
    if (item.kind() == Kind::kPerplexity) continue;
    try {
      engine::check_images(loaded, item.images.size());
      if (!item.images.empty() || context <= 0) continue;
      const engine::Prompt prompt =
          item.settings.chat ? chat_prompt(loaded, item) : engine::raw_prompt(loaded, raw_text(item));
      if (static_cast<int64_t>(prompt.tokens.size()) > context)
        fail(loaded.name, "the prompt has {} tokens and the model's context is {}", prompt.tokens.size(), context);
    } catch (const Error& error) {
      throw Error(task.place(item), error.what());
    }
  }
}

bool grade(const Item& item, std::string_view answer) {
  const auto prepared = [&](std::string_view text) {
    return item.settings.normalise ? normalise(text) : std::string(trim(text));
  };
  const std::string given = prepared(answer);
  const auto occurs = [&](const std::string& fact) { return contains_words(given, prepared(fact)); };
  switch (item.kind()) {
    case Kind::kExactMatch:
      return std::any_of(item.answers.begin(), item.answers.end(), [&](const std::string& accepted) {
        return item.settings.match_within ? occurs(accepted) : given == prepared(accepted);
      });
    case Kind::kContains:
      return std::none_of(item.forbidden.begin(), item.forbidden.end(), occurs) &&
             std::all_of(item.facts.begin(), item.facts.end(),
                         [&](const auto& fact) { return std::any_of(fact.begin(), fact.end(), occurs); });
    case Kind::kNumeric: {
      const auto number = last_number(answer);
      return number && std::abs(*number - item.number) <= item.settings.tolerance;
    }
    default:
      PUNA_CHECK(false, "no answer of kind {} is graded", kind_name(item.kind()));
      return false;
  }
}

int64_t context_estimate(const Task& task) {
  constexpr int64_t kImageTokens = 2500;  // a large image at 16 tiles and their global one
  int64_t most = task.is_perplexity() ? task.context : 0;
  for (const Item& item : task.items) {
    if (item.kind() == Kind::kPerplexity) continue;
    const auto bytes = static_cast<int64_t>(prompt_text(item).size());
    most = std::max(
        most, bytes / 2 + static_cast<int64_t>(item.images.size()) * kImageTokens + item.settings.max_tokens + 64);
  }
  return most;
}

}  // namespace puna::eval
