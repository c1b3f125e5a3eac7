#include <CLI/CLI.hpp>
#include <memory>

#include "base/error.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/comparison.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "engine/threads.h"

namespace puna::cli {
namespace {

struct CompareFlags {
  std::string model, other, text;
  int64_t context = 8192;
  int threads = 0;
  bool json = false, no_memory_check = false;
};

void run_compare(const CompareFlags& flags) {
  for (const auto& [name, value] :
       {std::pair("--model", &flags.model), {"--other", &flags.other}, {"--text", &flags.text}})
    if (value->empty()) throw UsageError(name, "is missing; compare needs --model, --other and --text");
  engine::set_threads(flags.threads);
  InterruptGuard interrupt;
  engine::CompareOptions options;
  options.reference.model = flags.model, options.other.model = flags.other;
  options.reference.check_memory = options.other.check_memory = !flags.no_memory_check;
  options.context = flags.context;
  options.cancel = &interrupt.flag();
  const engine::Comparison comparison = compare_on(flags.text, options);
  print_now(flags.json ? comparison.json().dump(2) + "\n" : comparison_text(comparison));
}

}  // namespace

void add_compare(CLI::App& app) {
  auto flags = std::make_shared<CompareFlags>();
  CLI::App* command = app.add_subcommand("compare", "Measure how far a model is from the one it was made from");
  command->add_option("--model", flags->model, "The original: a directory, .gguf, .safetensors or .pth file")
      ->type_name("PATH");
  command->add_option("--other", flags->other, "What was made from it")->type_name("PATH");
  command->add_option("--text", flags->text, "The text, UTF-8")->type_name("FILE");
  command->add_option("--context", flags->context, "Tokens per window, <|begin_of_text|> included")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--threads", flags->threads, "CPU threads; 0: one per physical core")
      ->check(not_negative)
      ->type_name("N")
      ->capture_default_str();
  command->add_flag("--no-memory-check", flags->no_memory_check, "Load even when memory seems too small");
  command->add_flag("--json", flags->json, "One JSON object");
  command->footer(
      "One model is in memory at a time. Shown: perplexity of both, the KL divergence from the original's next-token\n"
      "probabilities, and how often both have the same most likely token.\n"
      "Example:\n  puna compare --model ./scout --other ./scout-int4 --text book.txt");
  command->callback([flags] { run_compare(*flags); });
}

}  // namespace puna::cli
