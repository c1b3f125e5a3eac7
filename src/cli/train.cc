#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdio>
#include <memory>

#include "base/error.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "engine/loaded_model.h"
#include "engine/threads.h"
#include "train/dry_run.h"
#include "train/export.h"
#include "train/recipe.h"
#include "train/trainer.h"

namespace puna::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct TrainFlags {
  std::string recipe;
  std::vector<std::string> overrides;
  bool resume = false, dry_run = false, json = false, keys = false, no_memory_check = false;
  int64_t max_steps = 0;
};

std::string duration(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  return s >= 60 ? fmt::format("{}m{:02}s", s / 60, s % 60) : fmt::format("{}s", s);
}

// One line that is drawn over on a terminal; elsewhere a line now and then.
class LiveLine {
 public:
  ~LiveLine() { erase(); }

  void show(const train::StepReport& report) {
    // Smoothed over the last steps, so that the time left does not jump.
    const double weight = steps_ == 0 ? 1 : std::max(0.05, 1.0 / (steps_ + 1.0));
    seconds_ += weight * (report.seconds - seconds_);
    // What is between steps, such as validation, comes now and then: its mean is over all.
    const auto now = Clock::now();
    if (steps_ == 0)
      begun_ = now;
    else
      of_steps_ += report.seconds;
    const double between = std::max(0.0, std::chrono::duration<double>(now - begun_).count() - of_steps_) /
                           static_cast<double>(std::max<int64_t>(steps_, 1));
    rate_ += weight * (static_cast<double>(report.tokens) / report.seconds - rate_);
    loss_ += weight * (report.result.loss - loss_);
    ++steps_;
    for (const std::string& warning : report.warnings) note("warning: " + warning);
    const auto outlier = [&](const char* what, double value, double z) {
      note(fmt::format("step {}: outlier: {} {:.4g} lies {:.1f} deviations above the last steps'", report.step, what,
                       value, z));
    };
    if (report.loss_outlier) outlier("loss", report.result.loss, report.loss_z);
    if (report.norm_outlier) outlier("gradient norm", report.result.grad_norm, report.norm_z);
    const bool last = report.step == report.total_steps;
    if (!last && now - shown_ < (terminal_ ? std::chrono::milliseconds(100) : std::chrono::seconds(10))) return;
    shown_ = now;
    const double left = (seconds_ + between) * static_cast<double>(report.total_steps - report.step);
    const std::string line =
        fmt::format("{} {}/{}  loss {:.4f}  {:.0f} tokens/s  MFU {:.0f}%  data wait {:.0f}%  {} left", report.stage,
                    report.step, report.total_steps, loss_, rate_, 100 * report.mfu,
                    100 * report.data_wait_seconds / report.seconds, duration(left));
    if (terminal_)
      fmt::print(stderr, "\r\x1b[K{}", fitted("", line, terminal_columns() - 1));
    else
      fmt::print(stderr, "{}\n", line);
    std::fflush(stderr);
    drawn_ = terminal_;
  }

  void note(const std::string& text) {
    erase();
    fmt::print(stderr, "{}\n", text);
  }

 private:
  void erase() {
    if (drawn_) fmt::print(stderr, "\r\x1b[K");
    drawn_ = false;
  }

  bool terminal_ = ::isatty(STDERR_FILENO) == 1, drawn_ = false;
  int64_t steps_ = 0;
  double seconds_ = 0, rate_ = 0, loss_ = 0, of_steps_ = 0;
  Clock::time_point begun_, shown_ = Clock::now() - std::chrono::hours(1);
};

// As a word of a shell's command line.
std::string shell_quoted(const std::string& word) {
  constexpr std::string_view kPlain = "_./:=,+-@%";
  const bool plain = !word.empty() && std::ranges::all_of(word, [&](unsigned char c) {
    return std::isalnum(c) != 0 || kPlain.find(static_cast<char>(c)) != kPlain.npos;
  });
  if (plain) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

void run_train(const TrainFlags& flags) {
  if (flags.keys) return print_now(train::describe_recipe_keys());
  if (flags.recipe.empty())
    throw UsageError("train", "no recipe; give a TOML file, such as recipes/demo/pretrain.toml");
  const train::Recipe recipe = train::read_recipe(flags.recipe, flags.overrides);
  // What the exported model's generation_config.json will be refused for is refused now.
  if (!recipe.model.generation.is_null())
    engine::sampling_defaults(recipe.model.generation, flags.recipe + " [model.generation]");
  engine::set_threads(recipe.threads);
  InterruptGuard interrupt;
  if (flags.dry_run) {
    const auto on_counted = [&](const train::DryRun& counted) {
      for (const std::string& warning : counted.warnings) fmt::print(stderr, "warning: {}\n", warning);
      if (!flags.json) print_now(counted.counted_text());
    };
    const train::DryRun plan = train::dry_run(recipe, on_counted, &interrupt.flag(), !flags.no_memory_check);
    print_now(flags.json ? plan.json().dump(2) + "\n" : plan.measured_text());
    if (plan.refused) std::rethrow_exception(plan.refused);
    return;
  }
  train::Outcome outcome;
  {
    LiveLine line;
    train::TrainOptions options;
    options.resume = flags.resume;
    options.check_memory = !flags.no_memory_check;
    options.interrupt = &interrupt.flag();
    options.stop_after = flags.max_steps;
    options.on_step = [&](const train::StepReport& report) { line.show(report); };
    options.on_note = [&](const std::string& text) { line.note(text); };
    outcome = train::train(recipe, options);
  }
  std::string again = "puna train " + shell_quoted(flags.recipe);
  for (const std::string& change : flags.overrides) again += " " + shell_quoted(change);
  again += " --resume";
  if (outcome == train::Outcome::kInterrupted) {
    print_now(fmt::format("Stopped and saved in {}. Go on with: {}\n", recipe.out, again));
    if (interrupt.flag()) throw Exit{interrupt_status()};
    return;
  }
  print_now(fmt::format("Done: the model is in {0}/model. Next: ./puna chat --model {0}/model, ./puna plot {0}\n",
                        recipe.out));
}

struct ExportFlags {
  std::string run, out, dtype = "bf16";
  std::vector<std::string> average;
  int64_t step = -1;
};

void run_export(const ExportFlags& flags) {
  train::ExportOptions options{.run = flags.run, .step = flags.step, .average = {}, .on_note = {}};
  options.average.assign(flags.average.begin(), flags.average.end());
  if (flags.dtype == "fp32") options.dtype = at::kFloat;
  options.on_note = [](const std::string& text) { fmt::print(stderr, "{}\n", text); };
  const int64_t step = train::export_run(options, flags.out);
  print_now(fmt::format("Wrote step {} of {} to {}\n", step, flags.run, flags.out));
}

}  // namespace

void add_train(CLI::App& app) {
  auto flags = std::make_shared<TrainFlags>();
  CLI::App* command = app.add_subcommand("train", "Train a model by a recipe");
  command->add_option("recipe", flags->recipe, "The recipe, a TOML file")->type_name("RECIPE.toml");
  command
      ->add_option("overrides", flags->overrides, "Changes of keys: optimizer.learning_rate=3e-4 stage.NAME.steps=100")
      ->type_name("KEY=VALUE");
  command->add_flag("--resume", flags->resume, "Go on from the newest checkpoint of the run");
  command->add_flag("--dry-run", flags->dry_run, "Print parameters, memory, FLOPs, steps and time; train nothing");
  command->add_option("--max-steps", flags->max_steps, "Stop and save after so many steps; 0: no limit")
      ->check(not_negative)
      ->type_name("N");
  command->add_flag("--no-memory-check", flags->no_memory_check, "Train even when memory seems too small");
  command->add_flag("--keys", flags->keys, "Print every key of a recipe with its default");
  command->add_flag("--json", flags->json, "With --dry-run: one JSON object");
  command->footer(
      "The run directory (key 'out') gets metrics.jsonl, TensorBoard events, checkpoints and, at the end, the model.\n"
      "A stage without a name is called by its number, from 0: stage.0.steps=100.\n"
      "Ctrl-C or SIGTERM saves and stops; --resume goes on to the same bits.\n"
      "MFU = 3 x forward FLOPs of the step / (seconds x the fastest matmul that this machine reaches, measured at the\n"
      "start); forward FLOPs = 2 per active matmul parameter and token + 4 H K per query and key it sees + images.\n\n"
      "Example:\n  puna train recipes/demo/pretrain.toml out=runs/mine optimizer.learning_rate=1e-3");
  command->callback([flags] { run_train(*flags); });
}

void add_export(CLI::App& app) {
  auto flags = std::make_shared<ExportFlags>();
  CLI::App* command = app.add_subcommand("export", "Write the model of a training run in Hugging Face layout");
  command->add_option("run", flags->run, "Run directory of puna train")->required()->type_name("RUN");
  command->add_option("--step", flags->step, "Of a checkpoint; -1: the newest")->type_name("N")->capture_default_str();
  command->add_option("--out", flags->out, "Directory to write")->required()->type_name("DIR");
  command
      ->add_option("--average", flags->average,
                   "Further runs that went on from one another: the mean of the weights of all")
      ->type_name("RUN");
  command->add_option("--dtype", flags->dtype, "bf16 or fp32")
      ->check(CLI::IsMember({"bf16", "fp32"}))
      ->type_name("TYPE")
      ->capture_default_str();
  command->footer("Example:\n  puna export runs/demo --step 1500 --out demo-1500");
  command->callback([flags] { run_export(*flags); });
}

}  // namespace puna::cli
