#include "quant/quantise.h"

#include <ATen/Parallel.h>
#include <CLI/CLI.hpp>
#include <memory>

#include "base/error.h"
#include "base/interrupt.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "engine/threads.h"

namespace puna::cli {
namespace {

struct QuantizeFlags {
  std::string model, to, out;
  int threads = 0;
  bool json = false;
};

void run_quantize(const QuantizeFlags& flags) {
  if (flags.model.empty()) throw UsageError("--model", "is missing; give the model to quantise with --model DIR");
  if (flags.out.empty()) throw UsageError("--out", "is missing; give the directory to write with --out DIR");
  engine::set_threads(flags.threads);
  InterruptGuard interrupt;
  quant::QuantiseOptions options;
  options.rules = quant::read_rules(flags.to);
  options.threads = at::get_num_threads();
  options.interrupt = &interrupt.flag();
  const auto source = checkpoint::open_model(flags.model);
  quant::QuantiseReport report;
  try {
    report = quant::quantise_model(flags.model, *source, flags.out, options);
  } catch (const Interrupted&) {
    fmt::print(stderr, "Stopped. The files that are finished stay; the same command goes on.\n");
    throw;
  }
  if (flags.json) return print_now(report.json().dump(2) + "\n");
  for (const std::string& name : report.kept)
    fmt::print(stderr, "kept as it is: {} (its columns are no whole groups)\n", name);
  if (report.shards_found > 0) fmt::print(stderr, "{} files of an earlier run were kept.\n", report.shards_found);
  print_now(report.text() + fmt::format("Wrote {}\n", flags.out));
}

}  // namespace

void add_quantize(CLI::App& app) {
  auto flags = std::make_shared<QuantizeFlags>();
  CLI::App* command = app.add_subcommand("quantize", "Write a model with INT4, INT8 or FP8 weights");
  command->add_option("--model", flags->model, "Directory, .gguf, .safetensors or .pth")->type_name("PATH");
  command
      ->add_option("--to", flags->to, "int4, int8, fp8, mixed (routed experts int4, the rest int8), or a file of rules")
      ->required()
      ->type_name("PRESET|RULES.toml");
  command->add_option("--out", flags->out, "Directory to write; after a stop, the same one goes on")->type_name("DIR");
  command->add_option("--threads", flags->threads, "CPU threads; 0: one per physical core")
      ->check(not_negative)
      ->type_name("N")
      ->capture_default_str();
  command->add_flag("--json", flags->json, "The report as one JSON object");
  command->footer(
      "The output is a Hugging Face directory in compressed-tensors layout. It is written tensor by tensor, so that "
      "the\n"
      "model may be larger than memory. Rules: docs/QUANTIZATION.md.\n"
      "Example:\n  puna quantize --model ./scout --to int4 --out ./scout-int4");
  command->callback([flags] { run_quantize(*flags); });
}

}  // namespace puna::cli
