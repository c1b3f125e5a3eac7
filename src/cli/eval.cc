#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/eval_report.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "eval/needle.h"
#include "eval/run.h"
#include "io/file.h"

namespace puna::cli {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxHaystackBytes = 64 << 20;

struct EvalFlags {
  ModelOptions model;
  std::string directory;  // the model, without --model
  std::vector<std::string> tasks;
  int64_t limit = 0;
  double temperature = 0;
  uint64_t seed = 0;
  std::string items, plot, haystack;
  bool json = false, check = false, needle = false;
  eval::NeedleOptions needles;
};

void check_flags(const EvalFlags& flags) {
  if (flags.needle && !flags.tasks.empty()) throw UsageError("--needle", "takes no --task; run them one by one");
  if (flags.needle && flags.check) throw UsageError("--check", "is about the targets of tasks; --needle has none");
  if (flags.needle && (flags.limit > 0 || flags.temperature != 0))
    throw UsageError("--needle", "takes no --limit or --temperature; --trials says how many, and answers are greedy");
  engine::SamplingParams sampling;
  sampling.temperature = flags.temperature;
  engine::validate(sampling);
  const std::string ending = fs::path(flags.plot).extension().string();
  if (!flags.plot.empty() && ending != ".svg" && ending != ".png")
    throw UsageError("--plot", fmt::format("is '{}'; the picture's name ends in .svg or .png", flags.plot));
}

std::vector<eval::Task> read_tasks(const EvalFlags& flags) {
  std::vector<fs::path> files;
  for (const std::string& name : flags.tasks) files.push_back(eval::find_task(name, flags.model.model));
  if (flags.tasks.empty()) files = eval::shipped_tasks(flags.model.model);
  if (files.empty() && !io::path_exists(flags.model.model))
    fail(flags.model.model, "there is no such file or directory");
  if (files.empty()) fail(flags.model.model, "no tasks come with this model (eval/*.jsonl); give one with --task FILE");
  std::vector<eval::Task> tasks;
  for (const fs::path& file : files) {
    tasks.push_back(eval::read_task(file, flags.limit));
    if (flags.limit > 0) tasks.back().threshold.reset();  // holds for the whole task
  }
  return tasks;
}

// Opened before the work, so that a place where nothing can be written is said before it.
std::unique_ptr<io::AtomicFile> open_items(const EvalFlags& flags) {
  return flags.items.empty() ? nullptr : std::make_unique<io::AtomicFile>(flags.items);
}

void write_items(io::AtomicFile* file, const std::string& lines) {
  if (!file) return;
  file->write(lines);
  file->commit();
}

void print_json(const Json& json) { print_now(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"); }

void run_tasks(const EvalFlags& flags) {
  const std::vector<eval::Task> tasks = read_tasks(flags);
  int64_t context = 0;
  for (const eval::Task& task : tasks) context = std::max(context, eval::context_estimate(task));
  const auto items = open_items(flags);
  const engine::LoadedModel loaded = load(flags.model, context);
  for (const eval::Task& task : tasks) eval::check_fits(loaded, task);
  const InterruptGuard interrupt;
  std::vector<eval::TaskResult> results;
  std::string lines;
  for (const eval::Task& task : tasks) {
    Progress progress(task.name, static_cast<int64_t>(task.items.size()));
    eval::RunOptions options{flags.temperature, flags.seed, &interrupt.flag(),
                             [&](int64_t done) { progress.set(done); }};
    results.push_back(eval::run_task(loaded, task, options));
    if (items) lines += items_lines(results.back());
    if (results.back().error) break;
  }
  write_items(items.get(), lines);
  if (!results.empty() && results.back().error) std::rethrow_exception(results.back().error);
  if (flags.json)
    print_json({{"model", loaded.name}, {"partial", interrupt.flag().load()}, {"tasks", tasks_json(results)}});
  else
    print_now(tasks_table(results));
  if (interrupt.flag()) throw Exit{interrupt_status()};
  const bool missed =
      std::any_of(results.begin(), results.end(), [](const eval::TaskResult& result) { return result.met() == false; });
  if (flags.check && missed) throw Exit{1};
}

void run_needles(const EvalFlags& flags) {
  eval::NeedleOptions options = flags.needles;
  options.seed = flags.seed;
  if (!flags.haystack.empty()) {
    options.haystack = io::read_file(flags.haystack, kMaxHaystackBytes);
    if (options.haystack.empty()) fail(flags.haystack, "is empty; leave out --haystack for made-up sentences");
  }
  const auto items = open_items(flags);
  if (!flags.plot.empty()) io::AtomicFile(flags.plot);  // throws before the work when nothing can be written there
  const int64_t longest = *std::max_element(options.lengths.begin(), options.lengths.end());
  const engine::LoadedModel loaded = load(flags.model, longest + options.max_tokens);
  const InterruptGuard interrupt;
  options.cancel = &interrupt.flag();
  eval::NeedleResult result;
  {
    const auto cells = static_cast<int64_t>(options.lengths.size() * options.depths.size());
    Progress progress("needle", cells * options.trials);
    options.on_progress = [&](int64_t done) { progress.set(done); };
    result = eval::run_needle(loaded, options);
  }
  write_items(items.get(), needle_lines(options, result));
  if (!flags.plot.empty() && !result.trials.empty())
    plot::write_figure(needle_figure(options, result, loaded.name), flags.plot);
  if (flags.json)
    print_json({{"model", loaded.name}, {"needle", needle_json(options, result)}});
  else
    print_now(needle_table(options, result));
  if (result.partial) throw Exit{interrupt_status()};
}

void run_eval(EvalFlags flags) {
  if (!flags.directory.empty() && !flags.model.model.empty())
    throw UsageError("--model", fmt::format("is given twice: '{}' and '{}'", flags.directory, flags.model.model));
  check_flags(flags);
  if (!flags.directory.empty()) flags.model.model = flags.directory;
  flags.model.model = model_or_shipped(flags.model);
  flags.needle ? run_needles(flags) : run_tasks(flags);
}

void add_needle_options(CLI::App& command, EvalFlags& flags) {
  const std::string group = "Needle in a haystack";
  CLI::Option* needle = command.add_flag("--needle", flags.needle, "Find one fact in texts of several lengths");
  needle->group(group);
  const auto add = [&](CLI::Option* option, const char* type) { option->needs(needle)->type_name(type)->group(group); };
  add(command.add_option("--lengths", flags.needles.lengths, "Tokens of the prompt")
          ->delimiter(',')
          ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
          ->default_str("512,1024,2048"),
      "N,N,...");
  add(command.add_option("--depths", flags.needles.depths, "Percent of the text before the fact")
          ->delimiter(',')
          ->check(CLI::Range(0.0, 100.0))
          ->default_str("0,25,50,75,100"),
      "X,X,...");
  add(command.add_option("--trials", flags.needles.trials, "Per length and depth")
          ->check(CLI::Range(int64_t{1}, int64_t{1'000'000}))
          ->capture_default_str(),
      "N");
  add(command.add_option("--haystack", flags.haystack, "The text, UTF-8; absent: made-up sentences"), "FILE");
  add(command.add_option("--plot", flags.plot, "Also a picture, by its ending .svg or .png"), "FILE");
}

}  // namespace

void add_eval(CLI::App& app) {
  auto flags = std::make_shared<EvalFlags>();
  CLI::App* command = app.add_subcommand("eval", "Measure a model on tasks, with confidence intervals");
  command->add_option("dir", flags->directory, "The model, in place of --model")->type_name("PATH");
  add_model_options(*command, flags->model);
  command
      ->add_option("--task", flags->tasks,
                   "A task's file, or the name of one that comes with the model; several may be given; absent: all "
                   "that come with the model")
      ->type_name("FILE|NAME")
      ->allow_extra_args(false);
  command->add_option("--limit", flags->limit, "Items of a task at most, and no targets; 0: all")
      ->check(not_negative)
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--temperature", flags->temperature, "0 is greedy")
      ->check(not_negative)
      ->type_name("X")
      ->capture_default_str();
  command->add_option("--seed", flags->seed, "Of sampling, intervals and needles")
      ->check(not_negative)
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--items", flags->items, "Also write each item's prompt, answer and score, as JSON lines")
      ->type_name("FILE");
  command->add_flag("--json", flags->json, "One JSON object");
  command->add_flag("--check", flags->check, "Exit with 1 when a task misses its target");
  add_needle_options(*command, *flags);
  command->footer(
      "Example:\n  puna eval --model ./scout --task sums.jsonl --items answers.jsonl\n"
      "  puna eval --model ./scout --needle --lengths 4096,16384 --plot needle.svg\n"
      "docs/EVAL.md says what a task looks like.");
  command->callback([flags] { run_eval(*flags); });
}

}  // namespace puna::cli
