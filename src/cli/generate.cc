#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>

#include "base/error.h"
#include "base/json.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/engine_options.h"
#include "cli/generate_many.h"
#include "cli/generation_json.h"
#include "cli/options.h"
#include "cli/terminal.h"

namespace puna::cli {
namespace {

struct GenerateFlags {
  ModelOptions model;
  SamplingOptions sampling;
  GrammarOptions grammar;
  std::string prompt = "-", system;
  std::vector<std::string> images, stops;
  int64_t max_tokens = 512;
  std::optional<int> logprobs;
  EngineFlags engine;
  int completions = 1;
  std::string prompts;
  int64_t max_concurrent = 32;
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

Json to_json(const engine::LoadedModel& loaded, const engine::Response& response, const engine::SamplingParams& params,
             double load_ms) {
  const engine::Generation& g = response.completions.front();
  const int64_t read = g.prompt_tokens - g.reused_tokens;
  Json json = generation_json(loaded, g);
  json["model"] = loaded.name;
  json["usage"] = usage_json(response.completions);
  json["timings"] = {
      {"load_ms", load_ms},
      {"prefill_ms", g.prefill_ms},
      {"prefill_tokens_per_second", g.prefill_ms > 0 ? 1000.0 * static_cast<double>(read) / g.prefill_ms : 0},
      {"decode_ms", g.decode_ms},
      {"decode_tokens_per_second", g.decode_tokens_per_second()}};
  json["sampling"] = {{"temperature", params.temperature},
                      {"top_p", params.top_p},
                      {"top_k", params.top_k},
                      {"min_p", params.min_p},
                      {"typical_p", params.typical_p},
                      {"repetition_penalty", params.repetition_penalty},
                      {"frequency_penalty", params.frequency_penalty},
                      {"presence_penalty", params.presence_penalty},
                      {"seed", params.seed}};
  if (params.logprobs >= 0 && !json.contains("logprobs")) json["logprobs"] = Json::array();
  if (g.drafted_tokens > 0) json["speculation"] = {{"drafted", g.drafted_tokens}, {"accepted", g.accepted_tokens}};
  if (const experts::ExpertStore* store = loaded.model->expert_store()) json["experts"] = store->statistics().json();
  if (response.completions.size() > 1) {
    json["completions"] = Json::array();
    for (const engine::Generation& one : response.completions)
      json["completions"].push_back(generation_json(loaded, one));
  }
  return json;
}

void check_flags(const GenerateFlags& flags) {
  if (flags.raw && !flags.images.empty()) throw UsageError("--raw", "takes no --image; images need the chat format");
  if (flags.raw && !flags.system.empty()) throw UsageError("--raw", "takes no --system; write it into the prompt");
  if (flags.ignore_stop_tokens && !(flags.grammar.grammar + flags.grammar.json_schema).empty())
    throw UsageError("--ignore-stop-tokens", "cannot go with a grammar, which says where a text ends");
  if (!flags.prompts.empty() && (flags.prompt != "-" || !flags.images.empty() || !flags.system.empty()))
    throw UsageError("--prompts", "takes no --prompt, --image or --system; each line of the file has its own");
  if (flags.logprobs && !flags.json && flags.prompts.empty())
    throw UsageError("--logprobs", "is shown with --json alone; add --json");
}

// Room for the prompt at two bytes a token, images of full size, and the answer.
int64_t context_estimate(const GenerateFlags& flags, size_t prompt_bytes) {
  const int64_t answer = std::clamp<int64_t>(flags.max_tokens, 0, int64_t{1} << 40);
  return static_cast<int64_t>(prompt_bytes / 2 + flags.images.size() * 2500) + answer;
}

engine::Request request_of(const engine::LoadedModel& loaded, const GenerateFlags& flags) {
  engine::Request request;
  request.sampling = resolve(flags.sampling, loaded.defaults);
  request.sampling.logprobs = flags.logprobs.value_or(-1);
  request.max_tokens = flags.max_tokens;
  request.stop_strings = flags.stops;
  request.ignore_stop_tokens = flags.ignore_stop_tokens;
  request.completions = flags.completions;
  return request;
}

void print_json(const Json& json) { print_now(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"); }

// Several completions come at the same time, so that each is printed when all are there.
void print_completions(const std::vector<engine::Generation>& completions) {
  for (size_t i = 0; i < completions.size(); ++i)
    print_now(fmt::format("--- {} ---\n{}\n", i + 1, for_screen(completions[i].text)));
}

void run_one(const GenerateFlags& flags) {
  std::optional<grammar::Source> source = read_grammar(flags.grammar);
  std::string text = read_prompt(flags);
  check_prompt(flags, text);
  const auto start = std::chrono::steady_clock::now();
  const int64_t context = context_estimate(flags, text.size());
  const engine::LoadedModel loaded = load(flags.model, context);
  const double load_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();

  const InterruptGuard interrupt;
  engine::Request request = request_of(loaded, flags);
  const engine::SamplingParams sampling = request.sampling;
  const bool stream = !flags.json && flags.completions == 1;
  if (stream) request.on_text = [](int, std::string_view piece) { print_now(for_screen(piece)); };
  request.cancel = &interrupt.flag();
  request.grammar = compile_grammar(std::move(source), loaded);
  request.prompt = build_prompt(loaded, flags, std::move(text));
  const EngineSetup setup(flags.engine, loaded, std::max<int64_t>(context, 8192));
  engine::Engine engine(loaded, setup.options());
  auto progress = std::make_unique<Progress>("prompt", static_cast<int64_t>(request.prompt.tokens.size()));
  request.on_prefill = [&](int64_t done, int64_t total) {
    progress->set(done);
    if (done == total) progress.reset();  // erased before the first word appears
  };
  const engine::Response response = engine.run(*engine.submit(std::move(request)));
  if (flags.json)
    print_json(to_json(loaded, response, sampling, load_ms));
  else if (!stream)
    print_completions(response.completions);
  else
    print_now("\n");
  if (response.completions.front().reason == engine::StopReason::kCancelled) throw Exit{interrupt_status()};
}

void run_generate(const GenerateFlags& flags) {
  check_flags(flags);
  if (flags.prompts.empty()) return run_one(flags);
  const std::vector<PromptLine> lines = read_prompts(flags.prompts);
  const engine::LoadedModel loaded = load(flags.model, std::min<int64_t>(flags.max_concurrent, 8) * 1024);
  const InterruptGuard interrupt;
  engine::Request defaults = request_of(loaded, flags);
  defaults.grammar = compile_grammar(read_grammar(flags.grammar), loaded);
  defaults.cancel = &interrupt.flag();
  const EngineSetup setup(flags.engine, loaded, 8192);
  run_prompts(loaded, setup.options(), lines, defaults, flags.raw, flags.max_concurrent);
  if (interrupt.flag()) throw Exit{interrupt_status()};
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
  command->add_option("--n", flags->completions, "Completions of the prompt; the i-th draws with seed + i")
      ->check(CLI::Range(1, 256))
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option("--prompts", flags->prompts,
                   "A file of prompts, one JSON object a line (prompt, system, images, max_tokens, seed, temperature, "
                   "stop, n); answers come as JSON lines in the same order")
      ->type_name("FILE");
  command->add_option("--max-concurrent", flags->max_concurrent, "With --prompts: prompts under way at once")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->type_name("N")
      ->capture_default_str();
  command->add_flag("--json", flags->json, "One JSON object: text, tokens, usage, timings, stop reason");
  add_sampling_options(*command, flags->sampling);
  add_engine_options(*command, flags->engine);
  add_grammar_options(*command, flags->grammar);
  command->footer(
      "Example:\n  puna generate --model ./scout --prompt 'What is in this picture?' --image cat.jpg --max-tokens 200\n"
      "  puna generate --model ./scout --prompt 'Paris in three facts, as JSON.' --json-schema facts.json");
  command->callback([flags] { run_generate(*flags); });
}

}  // namespace puna::cli
