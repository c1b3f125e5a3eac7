// puna bench: random models of real width, and how near a step comes to what the machine can do.
#include <ATen/Parallel.h>
#include <CLI/CLI.hpp>
#include <functional>
#include <iostream>
#include <memory>
#include <string>

#include "arch/layer_plan.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "bench/explain.h"
#include "bench/machine.h"
#include "bench/random_model.h"
#include "bench/run.h"
#include "cli/bench_load.h"
#include "cli/bench_serve.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "engine/threads.h"

namespace puna::cli {
namespace {

namespace fs = std::filesystem;

struct MakeFlags {
  std::string preset = "scout", weights = "int4", out;
  int64_t layers = 0;
  uint64_t seed = 0;
  bool packed = false;
};

struct RunFlags {
  ModelOptions model;
  std::vector<int64_t> prompts = {512}, depths = {0}, batches = {1};
  int64_t rounds = 5, steps = 3;
  std::string routing = "uniform";
  uint64_t seed = 0;
  bool json = false, int8_cache = false, wait = false;
};

arch::Llama4Config config_of(const MakeFlags& flags) {
  std::optional<arch::Llama4Config> config = arch::preset(flags.preset);
  if (!config)
    throw UsageError("--preset", fmt::format("is '{}'; there are tiny, scout, maverick, behemoth", flags.preset));
  config->vision.reset();
  arch::TextConfig& text = config->text;
  if (flags.layers == 0) return *config;
  if (flags.layers < 1 || flags.layers > text.num_hidden_layers)
    throw UsageError("--layers", fmt::format("is {}; {} has {}", flags.layers, flags.preset, text.num_hidden_layers));
  text.num_hidden_layers = flags.layers;
  text.uses_rope.resize(static_cast<size_t>(flags.layers));
  if (!text.chunked_layers.empty()) text.chunked_layers.resize(static_cast<size_t>(flags.layers));
  std::erase_if(text.moe_layers, [&](int64_t layer) { return layer >= flags.layers; });
  return *config;
}

/// A preset with the head in the same format: then all that a decoded token reads is quantised.
quant::Rules rules_of(const std::string& weights) {
  if (weights == "bf16") return {};
  quant::Rules rules = quant::read_rules(weights);
  if (!weights.ends_with(".toml")) rules.head = rules.attention;
  return rules;
}

void run_make(const MakeFlags& flags) {
  if (flags.out.empty()) throw UsageError("--out", "is missing; give the directory to write with --out DIR");
  const InterruptGuard interrupt;
  engine::set_threads(0);
  bench::write_random_model(flags.out, {.config = config_of(flags),
                                        .rules = rules_of(flags.weights),
                                        .seed = flags.seed,
                                        .packed = flags.packed,
                                        .threads = at::get_num_threads(),
                                        .interrupt = &interrupt.flag()});
  int64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(flags.out)) bytes += static_cast<int64_t>(entry.file_size());
  print_now(
      fmt::format("Wrote {} ({})\nNext: ./puna bench run --model {}\n", flags.out, format_bytes(bytes), flags.out));
}

std::vector<bench::Case> cases_of(const RunFlags& flags) {
  std::vector<bench::Case> cases;
  for (const int64_t length : flags.prompts)
    if (length > 0) cases.push_back({bench::Case::Kind::kPrompt, length, 1});
  for (const int64_t depth : flags.depths)
    for (const int64_t batch : flags.batches)
      if (batch > 0) cases.push_back({bench::Case::Kind::kDecode, depth, batch});
  if (cases.empty()) throw UsageError("bench run", "has nothing to do; give --prompt or --batch");
  return cases;
}

int64_t most_cached_tokens(const std::vector<bench::Case>& cases, int64_t steps) {
  int64_t most = 0;
  for (const bench::Case& what : cases) most = std::max(most, (what.length + steps) * what.batch);
  return most;
}

/// The largest file of the model, for the disk's rate.
fs::path largest_file(const fs::path& model) {
  if (!fs::is_directory(model)) return model;
  fs::path largest;
  uintmax_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(model))
    if (entry.is_regular_file() && entry.file_size() > bytes) largest = entry.path(), bytes = entry.file_size();
  return largest;
}

Json spread_json(const bench::Spread& spread) {
  return {{"min", spread.low}, {"median", spread.middle}, {"max", spread.high}};
}

Json disk_json(const bench::DiskUse& use) {
  return {{"uses", use.uses},
          {"in_memory", use.in_memory},
          {"read_ahead", use.read_ahead},
          {"read_bytes", use.read_bytes},
          {"missed_bytes", use.missed_bytes},
          {"stall_seconds", use.stall_seconds}};
}

Json result_json(const bench::RunResult& result, const std::string& model, int threads,
                 const std::optional<experts::StoreStatistics>& experts) {
  Json json = {{"model", model},
               {"threads", threads},
               {"routing", result.routing},
               {"read_bytes_per_second", spread_json(result.read_bandwidth)},
               {"int8_operations_per_second", spread_json(result.int8_peak)},
               {"bf16_operations_per_second", spread_json(result.bf16_products)},
               {"disk_bytes_per_second", result.disk ? spread_json(*result.disk) : Json(nullptr)},
               {"cases", Json::array()}};
  if (experts) json["experts"] = experts->json();
  for (const bench::CaseResult& one : result.cases) {
    json["cases"].push_back({{"name", one.what.name()},
                             {"kind", one.what.kind == bench::Case::Kind::kPrompt ? "prompt" : "decode"},
                             {"length", one.what.length},
                             {"batch", one.what.batch},
                             {"bytes", one.work.bytes},
                             {"operations", one.work.operations},
                             {"experts_hit", one.work.experts_hit},
                             {"bound", one.bound},
                             {"tokens_per_second", spread_json(one.tokens_per_second)},
                             {"fraction_of_bound", spread_json(one.fraction)}});
    if (one.disk) json["cases"].back()["disk"] = disk_json(*one.disk);
  }
  return json;
}

std::string disk_text(const bench::RunResult& result) {
  std::string text = fmt::format("\n{:<18} {:>9} {:>9} {:>10}  {:>9} {:>9} {:>9}\n", "experts of a step", "uses",
                                 "in memory", "read ahead", "missed GB", "read GB", "waited s");
  for (const bench::CaseResult& one : result.cases) {
    if (!one.disk) continue;
    const bench::DiskUse& use = *one.disk;
    text += fmt::format("{:<18} {:>9.1f} {:>9.3f} {:>10.3f}  {:>9.3f} {:>9.3f} {:>9.3f}\n", one.what.name(), use.uses,
                        use.in_memory / use.uses, use.read_ahead / use.uses, use.missed_bytes / 1e9,
                        use.read_bytes / 1e9, use.stall_seconds);
  }
  return text;
}

std::string result_text(const bench::RunResult& result, int threads,
                        const std::optional<experts::StoreStatistics>& experts) {
  const auto line = [](const char* what, const bench::Spread& s, double unit, const char* name) {
    return fmt::format("{:<34} {:>9.1f} {:>9.1f} {:>9.1f}  {}\n", what, s.low / unit, s.middle / unit, s.high / unit,
                       name);
  };
  std::string text = fmt::format("{:<34} {:>9} {:>9} {:>9}\n", fmt::format("this machine, {} threads", threads), "min",
                                 "median", "max");
  text += line("reading memory", result.read_bandwidth, 1e9, "GB/s");
  text += line("INT8 dots", result.int8_peak, 1e9, "GOP/s");
  text += line("BF16 products of LibTorch", result.bf16_products, 1e9, "GOP/s");
  if (result.disk && result.disk->low > 0) text += line("reading the file, no page cache", *result.disk, 1e9, "GB/s");
  text += fmt::format("routing: {}\n", result.routing);
  text += fmt::format("\n{:<18} {:>9} {:>9} {:>9}  {:>8} {:>8}  {:<10} {:>17}\n", "tokens/s", "min", "median", "max",
                      "GB", "GOP", "bound", "fraction of it");
  for (const bench::CaseResult& one : result.cases)
    text += fmt::format("{:<18} {:>9.2f} {:>9.2f} {:>9.2f}  {:>8.3g} {:>8.3g}  {:<10} {:.2f} ({:.2f} .. {:.2f})\n",
                        one.what.name(), one.tokens_per_second.low, one.tokens_per_second.middle,
                        one.tokens_per_second.high, one.work.bytes / 1e9, one.work.operations / 1e9, one.bound,
                        one.fraction.middle, one.fraction.low, one.fraction.high);
  if (experts) text += disk_text(result) + "\nin all, " + experts->text() + "\n";
  text += fmt::format(
      "\nGB: weights read once, of the experts those that the tokens are routed to, keys and values. Its bound is GB / "
      "reading memory.\nGOP: 2 per weight and token, 4 per query, key and head width. Its bound is GOP / {}.\n",
      result.integer ? "INT8 dots" : "BF16 products");
  if (experts)
    text +=
        "A bound by the disk is missed GB / reading the file. missed: experts that were used and not in memory, each "
        "once in\na step, or in a piece of 2,048 tokens of a prompt; read: with those that were read ahead in vain.\n";
  return text;
}

/// For whoever measures programs in turn. At the end of input the rest runs without waiting.
void wait_for_line() {
  print_now("ready\n");
  std::string line;
  std::getline(std::cin, line);
}

void run_run(const RunFlags& flags) {
  const std::vector<bench::Case> cases = cases_of(flags);
  const InterruptGuard interrupt;
  const std::string model = model_or_shipped(flags.model);
  ModelOptions options = flags.model;
  options.model = model;
  const engine::LoadedModel loaded = load(options, most_cached_tokens(cases, flags.steps), /*need_tokenizer=*/false);
  const int threads = at::get_num_threads();
  const bench::RunResult result =
      bench::run_cases(*loaded.model, model::PageFormat::of(loaded.dtype, at::kCPU, flags.int8_cache),
                       {.cases = cases,
                        .rounds = flags.rounds,
                        .steps = flags.steps,
                        .threads = threads,
                        .routing = flags.routing == "zipf" ? bench::Routing::kZipf : bench::Routing::kUniform,
                        .seed = flags.seed,
                        .disk_file = largest_file(model),
                        .before_round = flags.wait ? wait_for_line : std::function<void()>(),
                        .wall_time = flags.wait,
                        .interrupt = &interrupt.flag()});
  const experts::ExpertStore* store = loaded.model->expert_store();
  const auto experts = store ? std::optional(store->statistics()) : std::nullopt;
  if (flags.json) return print_now(result_json(result, model, threads, experts).dump(2) + "\n");
  print_now(result_text(result, threads, experts));
}

struct ExplainFlags {
  ModelOptions model;
  bool json = false, int8_cache = false;
};

void run_explain(const ExplainFlags& flags) {
  ModelOptions options = flags.model;
  options.model = model_or_shipped(flags.model);
  const engine::LoadedModel loaded = load(options, 0, /*need_tokenizer=*/false);
  const auto parts = bench::explain(*loaded.model, model::PageFormat::of(loaded.dtype, at::kCPU, flags.int8_cache));
  if (flags.json) {
    Json json = Json::array();
    for (const bench::Explanation& one : parts)
      json.push_back({{"part", one.part},
                      {"matrices", one.matrices},
                      {"form", one.form},
                      {"kernel", one.kernel},
                      {"reason", one.reason}});
    return print_now(json.dump(2) + "\n");
  }
  std::string text;
  for (const bench::Explanation& one : parts)
    text += fmt::format("{:<26} {:<24} {}\n{:<26} {:<24}   {}\n", one.part, one.form, one.kernel,
                        one.matrices > 0 ? fmt::format("  {} weights", one.matrices) : "", "", one.reason);
  print_now(text);
}

void add_make(CLI::App& parent) {
  auto flags = std::make_shared<MakeFlags>();
  CLI::App* command = parent.add_subcommand("make", "Write a model of random weights and real width, for measuring");
  command->add_option("--preset", flags->preset, "tiny, scout, maverick or behemoth; text alone")
      ->capture_default_str();
  command->add_option("--layers", flags->layers, "Only the first N; 0: all")->type_name("N");
  command->add_option("--weights", flags->weights, "bf16, int4, int8, fp8, mixed (head alike), or a file of rules")
      ->type_name("FORMAT|RULES.toml")
      ->capture_default_str();
  command->add_option("--out", flags->out, "Directory to write")->type_name("DIR");
  command->add_option("--seed", flags->seed, "Of the weights")->capture_default_str();
  command->add_flag("--packed", flags->packed, "As puna pack would write it, directly: int4, int8, mixed");
  command->footer(
      "Embedding and routers hold codes, so that the tokens decide which experts are used.\n"
      "Example:\n  puna bench make --preset scout --layers 4 --weights int4 --out scout4\n"
      "  puna bench make --preset scout --weights int4 --packed --out scout-packed");
  command->callback([flags] { run_make(*flags); });
}

void add_run(CLI::App& parent) {
  auto flags = std::make_shared<RunFlags>();
  CLI::App* command = parent.add_subcommand("run", "Prompt and decode speed beside what the machine can do at most");
  add_model_options(*command, flags->model);
  const auto list = [&](const char* name, std::vector<int64_t>& values, const char* help) {
    command->add_option(name, values, help)
        ->delimiter(',')
        ->check(CLI::Range(int64_t{0}, int64_t{1} << 24))
        ->type_name("N,...")
        ->capture_default_str();
  };
  list("--prompt", flags->prompts, "Prompt lengths; 0: none");
  list("--depth", flags->depths, "Tokens that each sequence holds when one more is decoded");
  list("--batch", flags->batches, "Sequences that are decoded together; 0: none");
  command->add_option("--rounds", flags->rounds, "Measurements of each case")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--steps", flags->steps, "Tokens that a sequence decodes in a measurement")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command
      ->add_option("--routing", flags->routing,
                   "uniform; zipf: some experts often, in runs of 16 tokens (models of puna bench make)")
      ->check(CLI::IsMember({"uniform", "zipf"}))
      ->capture_default_str();
  command->add_option("--seed", flags->seed, "Of the tokens")->capture_default_str();
  command->add_flag("--int8-cache", flags->int8_cache, "Keys and values in INT8");
  command->add_flag("--wait", flags->wait, "Before each round print \"ready\" and wait for a line of standard input");
  command->add_flag("--json", flags->json, "Print JSON");
  command->footer(
      "The limits of the machine are measured before each case, in turn; the disk in each round, where experts stay on "
      "it.\nWith --memory a cache of experts takes tokens to settle: give more --steps.\n"
      "Examples:\n  puna bench run --model scout4 --prompt 512,2048 --batch 1,8,32 --depth 0,4096\n"
      "  puna bench run --model scout-packed --memory 16GB --prompt 0 --steps 40 --routing zipf");
  command->callback([flags] { run_run(*flags); });
}

void add_explain(CLI::App& parent) {
  auto flags = std::make_shared<ExplainFlags>();
  CLI::App* command = parent.add_subcommand("explain", "Which kernel each part of a model runs on here, and why");
  add_model_options(*command, flags->model);
  command->add_flag("--int8-cache", flags->int8_cache, "Keys and values in INT8");
  command->add_flag("--json", flags->json, "Print JSON");
  command->footer("Example:\n  puna bench explain --model scout4");
  command->callback([flags] { run_explain(*flags); });
}

}  // namespace

void add_bench(CLI::App& app) {
  CLI::App* command = app.add_subcommand("bench", "Measure how near a model comes to what this machine can do");
  command->require_subcommand(1);
  add_make(*command);
  add_run(*command);
  add_bench_load(*command);
  add_bench_serve(*command);
  add_explain(*command);
}

}  // namespace puna::cli
