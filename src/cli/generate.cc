#include "engine/generate.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>

#include "base/error.h"
#include "base/json.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/terminal.h"

namespace puna::cli {
namespace {

struct GenerateFlags {
  ModelOptions model;
  SamplingOptions sampling;
  std::string prompt = "-", system;
  std::vector<std::string> images, stops;
  int64_t max_tokens = 512;
  std::optional<int> logprobs;
  bool json = false, raw = false, ignore_stop_tokens = false;
};

std::string read_prompt(const GenerateFlags& flags) {
  if (flags.prompt != "-") return flags.prompt;
  if (isatty(STDIN_FILENO) == 1) fmt::print(stderr, "Type the prompt; Ctrl-D on an empty line ends it.\n");
  return read_standard_input();
}

/// Chat needs something to answer; a base model may begin from nothing.
void check_prompt(const GenerateFlags& flags, const std::string& text) {
  const bool blank = text.find_first_not_of(" \t\r\n") == std::string::npos;
  if (blank && !flags.raw && flags.images.empty())
    throw UsageError("--prompt", "is empty; give the question with --prompt TEXT or on standard input");
}

engine::Prompt build_prompt(const engine::LoadedModel& loaded, const GenerateFlags& flags, std::string text) {
  if (flags.raw) return engine::raw_prompt(loaded, text);
  engine::check_images(loaded, flags.images.size());
  std::vector<text::Message> messages;
  if (!flags.system.empty()) messages.push_back({text::Role::kSystem, {text::TextPart{flags.system}}, {}, false});
  text::Message user{text::Role::kUser, {}, {}, false};
  std::vector<engine::EncodedImage> images;
  Progress progress("images", static_cast<int64_t>(flags.images.size()));
  for (const std::string& file : flags.images) {
    user.parts.push_back(text::ImagePart{images.size()});
    images.push_back(engine::encode_image_file(loaded, file));
    progress.add(1);
  }
  user.parts.push_back(text::TextPart{std::move(text)});
  messages.push_back(std::move(user));
  return engine::chat_prompt(loaded, messages, images);
}

Json logprobs_json(const engine::LoadedModel& loaded, const std::vector<engine::Sample>& samples) {
  const auto entry = [&](engine::TokenId id, double logprob) {
    const bool known = id < loaded.tokenizer->vocab_size();
    return Json{{"token", id},
                {"text", known ? std::string(loaded.tokenizer->token_bytes(id)) : ""},
                {"logprob", std::isfinite(logprob) ? Json(logprob) : Json(nullptr)}};
  };
  Json list = Json::array();
  for (const engine::Sample& sample : samples) {
    Json item = entry(sample.id, sample.logprob);
    item["top"] = Json::array();
    for (const auto& other : sample.top) item["top"].push_back(entry(other.id, other.logprob));
    list.push_back(std::move(item));
  }
  return list;
}

Json to_json(const engine::LoadedModel& loaded, const engine::Generation& g, const engine::SamplingParams& params,
             double load_ms) {
  const auto generated = static_cast<int64_t>(g.tokens.size());
  const double prefill_rate = g.prefill_ms > 0 ? 1000.0 * static_cast<double>(g.prompt_tokens) / g.prefill_ms : 0;
  Json json = {{"model", loaded.name},
               {"text", g.text},
               {"tokens", g.tokens},
               {"stop_reason", engine::stop_reason_name(g.reason)},
               {"usage",
                {{"prompt_tokens", g.prompt_tokens},
                 {"completion_tokens", generated},
                 {"total_tokens", g.prompt_tokens + generated}}},
               {"timings",
                {{"load_ms", load_ms},
                 {"prefill_ms", g.prefill_ms},
                 {"prefill_tokens_per_second", prefill_rate},
                 {"decode_ms", g.decode_ms},
                 {"decode_tokens_per_second", g.decode_tokens_per_second()}}},
               {"sampling",
                {{"temperature", params.temperature},
                 {"top_p", params.top_p},
                 {"top_k", params.top_k},
                 {"min_p", params.min_p},
                 {"repetition_penalty", params.repetition_penalty},
                 {"seed", params.seed}}}};
  json["stop"] = g.stop.empty() ? Json(nullptr) : Json(g.stop);
  if (params.logprobs >= 0) json["logprobs"] = logprobs_json(loaded, g.samples);
  return json;
}

void check_flags(const GenerateFlags& flags) {
  if (flags.raw && !flags.images.empty()) throw UsageError("--raw", "takes no --image; images need the chat format");
  if (flags.raw && !flags.system.empty()) throw UsageError("--raw", "takes no --system; write it into the prompt");
  if (flags.logprobs && !flags.json) throw UsageError("--logprobs", "is shown with --json alone; add --json");
}

// Room for the prompt at two bytes a token, images of full size, and the answer.
int64_t context_estimate(const GenerateFlags& flags, size_t prompt_bytes) {
  const int64_t answer = std::clamp<int64_t>(flags.max_tokens, 0, int64_t{1} << 40);
  return static_cast<int64_t>(prompt_bytes / 2 + flags.images.size() * 2500) + answer;
}

void run_generate(const GenerateFlags& flags) {
  check_flags(flags);
  std::string text = read_prompt(flags);
  check_prompt(flags, text);
  const auto start = std::chrono::steady_clock::now();
  const engine::LoadedModel loaded = load(flags.model, context_estimate(flags, text.size()));
  const double load_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();

  engine::GenerateOptions options;
  options.sampling = resolve(flags.sampling, loaded.defaults);
  options.sampling.logprobs = flags.logprobs.value_or(-1);
  options.max_tokens = flags.max_tokens;
  options.stop_strings = flags.stops;
  options.ignore_stop_tokens = flags.ignore_stop_tokens;
  if (!flags.json) options.on_text = [](std::string_view piece) { print_now(for_screen(piece)); };

  const InterruptGuard interrupt;
  options.cancel = &interrupt.flag();
  const engine::Prompt prompt = build_prompt(loaded, flags, std::move(text));
  engine::Sequence sequence(loaded);
  auto progress = std::make_unique<Progress>("prompt", static_cast<int64_t>(prompt.tokens.size()));
  options.on_prefill = [&](int64_t done, int64_t total) {
    progress->set(done);
    if (done == total) progress.reset();  // erased before the first word appears
  };
  const engine::Generation result = engine::generate(loaded, sequence, prompt, options);
  if (flags.json)
    print_now(to_json(loaded, result, options.sampling, load_ms).dump(2, ' ', false, Json::error_handler_t::replace) +
              "\n");
  else
    print_now("\n");
  if (result.reason == engine::StopReason::kCancelled) throw Exit{interrupt_status()};
}

}  // namespace

void add_generate(CLI::App& app) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::App* command = app.add_subcommand("generate", "Answer one prompt, with images if the model sees");
  add_model_options(*command, flags->model);
  command->add_option("--prompt", flags->prompt, "The user's message; '-' or absent: standard input")
      ->type_name("TEXT");
  command->add_option("--system", flags->system, "System message")->type_name("TEXT");
  command->add_option("--image", flags->images, "JPEG, PNG or WebP files, put before the text (at most 48)")
      ->type_name("FILE");
  command->add_flag("--raw", flags->raw, "Continue the text itself, without the chat format");
  command->add_option("--max-tokens", flags->max_tokens, "Tokens to generate at most")
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--stop", flags->stops, "End before this text appears; may be given several times")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  command->add_flag("--ignore-stop-tokens", flags->ignore_stop_tokens, "Go on past the end of the turn");
  command->add_option("--logprobs", flags->logprobs, "With --json: log-probabilities and N alternatives per token")
      ->check(not_negative)
      ->type_name("N");
  command->add_flag("--json", flags->json, "One JSON object: text, tokens, usage, timings, stop reason");
  add_sampling_options(*command, flags->sampling);
  command->footer(
      "Example:\n  puna generate --model ./scout --prompt 'What is in this picture?' --image cat.jpg --max-tokens 200");
  command->callback([flags] { run_generate(*flags); });
}

}  // namespace puna::cli
