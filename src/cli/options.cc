#include "cli/options.h"

#include <CLI/CLI.hpp>
#include <array>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <random>

#include "base/env.h"
#include "base/error.h"
#include "base/memory.h"
#include "cli/pack.h"
#include "cli/terminal.h"
#include "engine/generate.h"
#include "engine/threads.h"
#include "grammar/gbnf.h"
#include "grammar/json_schema.h"
#include "io/file.h"

namespace puna::cli {
namespace {

std::optional<at::ScalarType> parse_dtype(const std::string& name) {
  if (name == "fp32") return at::kFloat;
  if (name == "bf16") return at::kBFloat16;
  return std::nullopt;
}

at::Device parse_device(const std::string& name) {
  try {
    const at::Device device(name);
    if (device.is_cpu() || device.is_cuda()) return device;
  } catch (const c10::Error&) {
  }
  throw UsageError("--device", fmt::format("is '{}'; use cpu, cuda or cuda:N", name));
}

// "ID=VALUE": a token and what is added to its logit.
std::pair<engine::TokenId, double> parse_bias(const std::string& text) {
  const size_t equals = text.find('=');
  engine::TokenId id = -1;
  double value = 0;
  const auto read = [&](size_t begin, size_t end, auto& number) {
    const auto [rest, error] = std::from_chars(text.data() + begin, text.data() + end, number);
    return error == std::errc() && rest == text.data() + end && begin < end;
  };
  if (equals == std::string::npos || !read(0, equals, id) || !read(equals + 1, text.size(), value) || std::isnan(value))
    throw UsageError("--logit-bias", fmt::format("is '{}'; write ID=VALUE, such as 42=-5 or 42=-inf", text));
  return {id, value};
}

}  // namespace

int64_t parse_memory(const std::string& text, const std::string& flag) {
  const std::array<std::pair<std::string_view, double>, 7> units = {
      {{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"%", 0}}};
  for (const auto& [unit, bytes] : units) {
    if (!text.ends_with(unit)) continue;
    const std::string_view number = std::string_view(text).substr(0, text.size() - unit.size());
    double value = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
    if (error != std::errc() || end != number.data() + number.size()) break;
    const double total = unit == "%" ? value / 100 * static_cast<double>(available_memory_bytes()) : value * bytes;
    if (total >= 1 && total < 1e18) return static_cast<int64_t>(total);
    break;
  }
  throw UsageError(flag, fmt::format("is '{}'; write it as 16GiB, 800MiB or 50%", text));
}

void add_model_options(CLI::App& command, ModelOptions& options) {
  command.add_option("--model,--ckpt", options.model, "Model: a directory, .gguf, .safetensors or .pth file")
      ->type_name("PATH");
  command.add_option("--tokenizer", options.tokenizer, "Tokenizer file or directory, when not beside the model")
      ->type_name("PATH");
  command.add_option("--adapter", options.adapters, "LoRA adapter directory; several add up")
      ->type_name("DIR")
      ->allow_extra_args(false);
  command.add_option("--dtype", options.dtype, "Compute in fp32 or bf16; auto: as stored")
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}))
      ->type_name("TYPE")
      ->capture_default_str();
  command
      .add_option("--weights", options.weights,
                  "stored: INT4, INT8 and FP8 weights stay so, for integers rows are rounded to INT8; dense: all are "
                  "dequantised")
      ->check(CLI::IsMember({"stored", "dense"}))
      ->type_name("FORM")
      ->capture_default_str();
  command.add_option("--device", options.device, "cpu, cuda or cuda:N")->type_name("DEVICE")->capture_default_str();
  command.add_option("--threads", options.threads, "CPU threads; 0: all physical cores")
      ->type_name("N")
      ->capture_default_str();
  command
      .add_option("--memory", options.memory,
                  "Memory for all of it, as 16GiB or 50%; experts of a packed model that do not fit stay on disk")
      ->type_name("SIZE");
  command.add_option("--expert-profile", options.expert_profile, "Experts to read first, from: puna experts profile")
      ->type_name("FILE");
  command.add_flag("--no-memory-check", options.no_memory_check, "Load even when memory seems too small");
  command.add_flag("--pack", options.pack,
                   "Use the model as puna pack writes it: DIR-packed beside it, made when needed");
}

std::optional<std::string> shipped_model() {
  namespace fs = std::filesystem;
  std::vector<fs::path> places;
  std::error_code error;
  if (const auto named = env::demo_model()) {
    places = {*named};
  } else {
    const fs::path program = fs::read_symlink("/proc/self/exe", error);
    for (const fs::path& root : {program.parent_path(), fs::path(PUNA_SOURCE_DIR)})
      places.push_back(root / "models" / "puna-demo");
  }
  for (const fs::path& place : places)
    if (fs::exists(place / "config.json", error)) return place.string();
  return std::nullopt;
}

std::string model_or_shipped(const ModelOptions& options) {
  if (!options.model.empty()) return options.model;
  const auto shipped = shipped_model();
  if (!shipped) throw UsageError("--model", "is missing; give a model's directory or file with --model PATH");
  say_aside(fmt::format("Using {}, the small model that comes with Puna; another one: --model PATH", *shipped));
  return *shipped;
}

engine::LoadedModel load(const ModelOptions& options, int64_t context_tokens, bool need_tokenizer) {
  const std::string model = model_or_shipped(options);
  engine::set_threads(options.threads);
  engine::LoadOptions load;
  load.model = options.pack ? packed_beside(model) : model;
  if (!options.tokenizer.empty()) load.tokenizer = options.tokenizer;
  load.adapters.assign(options.adapters.begin(), options.adapters.end());
  load.dtype = parse_dtype(options.dtype);
  load.weights = options.weights == "dense" ? model::WeightForm::kDense : model::WeightForm::kStored;
  load.device = parse_device(options.device);
  load.context_tokens = context_tokens;
  if (!options.memory.empty()) load.memory_bytes = parse_memory(options.memory, "--memory");
  load.check_memory = !options.no_memory_check;
  load.need_tokenizer = need_tokenizer;
  engine::LoadedModel loaded = engine::load_model(load);
  if (!options.expert_profile.empty()) {
    const Json profile = read_json_file(options.expert_profile);
    if (loaded.model->expert_store() != nullptr) loaded.model->expert_store()->warm(profile, options.expert_profile);
  }
  return loaded;
}

std::string not_negative(const std::string& text) {
  return text.starts_with('-') ? "is " + text + "; it must not be negative" : "";
}

void add_sampling_options(CLI::App& command, SamplingOptions& options) {
  const std::string group = "Sampling (defaults: the model's generation_config.json, else 0.6 and 0.9)";
  command.add_option("--temperature", options.temperature, "0 is greedy")->type_name("X")->group(group);
  command.add_option("--top-p", options.top_p, "Keep the most probable tokens that reach this share")
      ->type_name("X")
      ->group(group);
  command.add_option("--top-k", options.top_k, "Keep this many tokens; 0: all")->type_name("N")->group(group);
  command.add_option("--min-p", options.min_p, "Drop tokens below this share of the most probable one")
      ->type_name("X")
      ->group(group);
  command
      .add_option("--typical-p", options.typical_p, "Keep the tokens of most typical information that reach this share")
      ->type_name("X")
      ->group(group);
  command
      .add_option("--frequency-penalty", options.frequency_penalty, "Taken off a logit for each time it was generated")
      ->type_name("X")
      ->group(group);
  command.add_option("--presence-penalty", options.presence_penalty, "Taken off the logits of tokens generated before")
      ->type_name("X")
      ->group(group);
  command
      .add_option("--logit-bias", options.logit_bias,
                  "Add to the logit of a token; -inf: never; may be given several times")
      ->type_name("ID=VALUE")
      ->allow_extra_args(false)
      ->group(group);
  command.add_option("--repetition-penalty", options.repetition_penalty, "Above 1: repeat less; 1: off")
      ->type_name("X")
      ->group(group);
  command.add_option("--seed", options.seed, "The same seed gives the same text; default: random")
      ->check(not_negative)
      ->type_name("N")
      ->group(group);
}

engine::SamplingParams resolve(const SamplingOptions& options, const engine::SamplingParams& defaults) {
  engine::SamplingParams params = defaults;
  params.temperature = options.temperature.value_or(params.temperature);
  params.top_p = options.top_p.value_or(params.top_p);
  params.top_k = options.top_k.value_or(params.top_k);
  params.min_p = options.min_p.value_or(params.min_p);
  params.typical_p = options.typical_p.value_or(params.typical_p);
  params.frequency_penalty = options.frequency_penalty.value_or(params.frequency_penalty);
  params.presence_penalty = options.presence_penalty.value_or(params.presence_penalty);
  for (const std::string& text : options.logit_bias)
    params.logit_bias.insert_or_assign(parse_bias(text).first, parse_bias(text).second);
  params.repetition_penalty = options.repetition_penalty.value_or(params.repetition_penalty);
  params.seed = options.seed ? *options.seed : std::random_device{}();
  engine::validate(params);
  return params;
}

void add_grammar_options(CLI::App& command, GrammarOptions& options) {
  const std::string group = "Grammar (the answer is one of its texts)";
  auto* grammar =
      command.add_option("--grammar", options.grammar, "Rules, alternatives, repetitions; see docs/SAMPLING.md")
          ->type_name("FILE")
          ->group(group);
  command.add_option("--json-schema", options.json_schema, "JSON of this schema; {} in it: any JSON")
      ->type_name("FILE")
      ->excludes(grammar)
      ->group(group);
}

std::optional<grammar::Source> read_grammar(const GrammarOptions& options) {
  constexpr int64_t kMaxBytes = 1 << 20;
  if (!options.grammar.empty()) return grammar::read_gbnf(io::read_file(options.grammar, kMaxBytes), options.grammar);
  if (options.json_schema.empty()) return std::nullopt;
  const std::string text = io::read_file(options.json_schema, kMaxBytes);
  return grammar::read_json_schema(parse_ordered_json(text, options.json_schema), options.json_schema);
}

std::shared_ptr<const grammar::CompiledGrammar> compile_grammar(std::optional<grammar::Source> source,
                                                                const engine::LoadedModel& loaded) {
  if (!source) return nullptr;
  return grammar::CompiledGrammar::compile(std::move(*source), engine::grammar_vocabulary(loaded));
}

}  // namespace puna::cli
