#include "cli/bench_load.h"

#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "bench/machine.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "engine/generate.h"

namespace puna::cli {
namespace {

struct LoadFlags {
  ModelOptions model;
  int64_t rounds = 5;
  bool json = false;
};

/// Seconds.
struct Times {
  double load = 0, first_token = 0;
};

Times load_and_answer(const ModelOptions& options) {
  constexpr int64_t kContext = 8192;
  std::unique_ptr<engine::LoadedModel> loaded;
  Times times;
  times.load = bench::wall_seconds_of(
      [&] { loaded = std::make_unique<engine::LoadedModel>(load(options, kContext, /*need_tokenizer=*/false)); });
  times.first_token = bench::wall_seconds_of([&] {
    engine::Engine engine(*loaded, engine::single_user_options(*loaded, kContext));
    engine::Prompt prompt;
    prompt.tokens = {0};
    engine::GenerateOptions generation;
    generation.sampling.temperature = 0;
    generation.max_tokens = 1;
    generation.ignore_stop_tokens = true;
    engine::generate(engine, prompt, generation);
  });
  return times;
}

/// In a process of its own, where nothing of LibTorch has been used before.
Times in_child(const ModelOptions& options) {
  int ends[2];
  if (::pipe(ends) != 0) fail("bench load", "cannot make a pipe");
  const pid_t child = ::fork();
  if (child < 0) fail("bench load", "cannot start a process");
  if (child == 0) {
    int status = 1;
    try {
      const Times times = load_and_answer(options);
      if (::write(ends[1], &times, sizeof(times)) == sizeof(times)) status = 0;
    } catch (...) {
      status = 1;  // the parent meets it again, and says it
    }
    ::_exit(status);
  }
  ::close(ends[1]);
  Times times;
  const bool whole = ::read(ends[0], &times, sizeof(times)) == sizeof(times);
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  return whole && status == 0 ? times : load_and_answer(options);
}

/// Seconds since this process was made, to a hundredth.
double seconds_since_start() {
  constexpr int kStartTime = 20;  // fields after the name, which ends with the last ")"
  std::string stat;
  std::getline(std::ifstream("/proc/self/stat"), stat);
  size_t at = stat.rfind(')') + 1;
  for (int field = 0; field < kStartTime - 1; ++field) at = stat.find(' ', at + 1);
  const double started = std::strtod(stat.c_str() + at, nullptr) / static_cast<double>(::sysconf(_SC_CLK_TCK));
  timespec now = {};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9 - started;
}

void run_load(const LoadFlags& flags) {
  const double start = seconds_since_start();
  ModelOptions options = flags.model;
  options.model = model_or_shipped(flags.model);
  std::vector<double> load, first, all;
  for (int64_t round = -1; round < flags.rounds; ++round) {
    const Times times = in_child(options);
    if (round < 0) continue;
    load.push_back(times.load), first.push_back(times.first_token);
    all.push_back(start + times.load + times.first_token);
  }
  const std::pair<const char*, bench::Spread> rows[] = {
      {"load", bench::Spread(load)}, {"first_token", bench::Spread(first)}, {"together", bench::Spread(all)}};
  if (flags.json) {
    Json json = {{"model", options.model}, {"start_seconds", start}};
    for (const auto& [name, spread] : rows)
      json[std::string(name) + "_seconds"] = {{"min", spread.low}, {"median", spread.middle}, {"max", spread.high}};
    return print_now(json.dump(2) + "\n");
  }
  std::string text = fmt::format("{:<24} {:>8} {:>8} {:>8}\n{:<24} {:>8} {:>8.3f}\n", "seconds", "min", "median", "max",
                                 "start of the program", "", start);
  for (const auto& [name, spread] : rows)
    text += fmt::format("{:<24} {:>8.3f} {:>8.3f} {:>8.3f}\n",
                        name == std::string_view("first_token") ? "first token" : name, spread.low, spread.middle,
                        spread.high);
  print_now(text);
}

}  // namespace

void add_bench_load(CLI::App& bench) {
  auto flags = std::make_shared<LoadFlags>();
  CLI::App* command = bench.add_subcommand("load", "How long until a model's first token, of a prompt of one");
  add_model_options(*command, flags->model);
  command->add_option("--rounds", flags->rounds, "Measurements, each in a process of its own")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_flag("--json", flags->json, "Print JSON");
  command->footer(
      "One more comes first and is not counted, so that what memory holds of the files is there.\n"
      "Example:\n  puna bench load --model scout4-packed");
  command->callback([flags] { run_load(*flags); });
}

}  // namespace puna::cli
