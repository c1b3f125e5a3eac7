#include "quant/quantise.h"

#include <ATen/Parallel.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <set>
#include <span>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "checkpoint/scalar_type.h"
#include "cli/commands.h"
#include "cli/comparison.h"
#include "cli/convert.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "engine/threads.h"
#include "io/file.h"
#include "io/hash.h"
#include "quant/calibration.h"
#include "quant/gguf_model.h"
#include "quant/rare.h"

namespace puna::cli {
namespace {

constexpr int64_t kMaxCalibrationBytes = int64_t{1} << 30;

struct QuantizeFlags {
  std::string model, to, out, text, calibrate, expert_profile, format = "compressed-tensors";
  quant::RareOptions rare;
  int threads = 0;
  bool json = false;
};

/// Hours of quantising are not lost to what could be known before.
void check_text(const QuantizeFlags& flags, const checkpoint::ModelSource& source) {
  if (flags.text.empty()) return;
  if (!io::path_exists(flags.text)) throw UsageError("--text", fmt::format("'{}' is not there", flags.text));
  const auto dtype = checkpoint::default_compute_type(source.config().dtype);
  const int64_t longest = source.config().text.max_position_embeddings, context = engine::CompareOptions().context;
  engine::check_memory(source, {.dtype = dtype}, longest > 0 ? std::min(context, longest) : context,
                       available_memory_bytes(), "--text " + flags.text);
}

bool is_gguf(const QuantizeFlags& flags) { return flags.format == "gguf"; }

std::filesystem::path report_path(const QuantizeFlags& flags) {
  const std::filesystem::path out = flags.out;
  if (!is_gguf(flags)) return out / "quantization_report.json";
  return (out.has_parent_path() ? out.parent_path() : ".") / (out.filename().string() + ".report.json");
}

/// Original against output.
engine::Comparison compare_output(const QuantizeFlags& flags, const std::atomic<bool>& stop) {
  engine::CompareOptions options;
  options.reference.model = flags.model, options.other.model = flags.out;
  options.scratch = report_path(flags).parent_path();
  options.cancel = &stop;
  return compare_on(flags.text, options);
}

/// The statistics that quantising asks for, from the text of --calibrate.
std::unique_ptr<quant::Calibration> calibrate(const QuantizeFlags& flags, const checkpoint::ModelSource& source,
                                              quant::QuantiseOptions& options) {
  if (flags.calibrate.empty()) return nullptr;
  const std::string text = io::read_file(flags.calibrate, kMaxCalibrationBytes);
  auto rows = quant::rows_to_calibrate(source.config(), options.rules);
  std::set<std::string> names;
  for (const arch::ParamRow& row : rows) names.insert(row.name);
  quant::CalibrationOptions calibration;
  calibration.with_products = !is_gguf(flags);
  calibration.interrupt = options.interrupt;
  engine::LoadOptions model;
  model.model = flags.model;
  model.weights = model::WeightForm::kDense;
  model.context_tokens = calibration.context;
  auto made = std::make_unique<quant::Calibration>(model, text, std::move(rows), calibration);
  options.statistics = [names, &calibration = *made](const std::string& row, int64_t expert) {
    return names.contains(row) ? &calibration.of(row, expert) : nullptr;
  };
  options.calibration_id = "calibrated on " + io::hash_of(std::as_bytes(std::span(text)));
  return made;
}

/// The experts of --rare-experts, if any.
std::optional<quant::RareExperts> rare_experts(const QuantizeFlags& flags, const checkpoint::ModelSource& source,
                                               const quant::Rules& rules) {
  if (flags.rare.format.empty()) return std::nullopt;
  if (is_gguf(flags))
    throw UsageError("--rare-experts", "is of compressed-tensors; GGUF has one format for all experts of a layer");
  if (flags.expert_profile.empty())
    throw UsageError("--rare-experts",
                     "needs --expert-profile FILE, which says how often each is used: puna experts profile writes it");
  return quant::choose_rare(source.config(), rules, flags.rare, read_json_file(flags.expert_profile),
                            flags.expert_profile);
}

void say_few_tokens(const quant::Calibration& calibration) {
  const auto few = calibration.warnings();
  if (few.empty()) return;
  fmt::print(stderr,
             "{} experts saw few tokens of the text and lean on their layer's others; a longer text helps: {}\n",
             few.size(), fmt::join(few, ", "));
}

quant::QuantiseReport write(const QuantizeFlags& flags, const checkpoint::ModelSource& source,
                            const quant::QuantiseOptions& options) {
  if (!is_gguf(flags)) return quant::quantise_model(flags.model, source, flags.out, options);
  options.rules.check_layout(true, "--to");
  const auto tokenizer = tokenizer_of(flags.model);
  say_beyond_llama_cpp(source);
  return quant::write_gguf(flags.model, source, tokenizer, flags.out, quant::dense_dtype(source), options);
}

/// One line for all: of a large model there are hundreds.
void say_names(const char* what, const std::vector<std::string>& names) {
  if (names.empty()) return;
  fmt::print(stderr, "{}: {}{}\n", what, names[0],
             names.size() > 1 ? fmt::format(" and {} more, which the report lists", names.size() - 1) : "");
}

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
  check_text(flags, *source);
  options.rare = rare_experts(flags, *source, options.rules);
  auto calibration = calibrate(flags, *source, options);
  quant::QuantiseReport report;
  try {
    report = write(flags, *source, options);
  } catch (const Interrupted&) {
    fmt::print(stderr, "Stopped. {}\n",
               is_gguf(flags) ? "Nothing was written." : "The files that are finished stay; the same command goes on.");
    throw;
  }
  Json json = report.json();
  if (calibration) {
    say_few_tokens(*calibration);
    json["calibration"] = {{"text", flags.calibrate}, {"few_tokens", calibration->warnings()}};
    calibration.reset();  // its model makes room
  }
  std::optional<engine::Comparison> comparison;
  if (!flags.text.empty()) {
    comparison = compare_output(flags, interrupt.flag());
    json["comparison"] = comparison->json();
  }
  io::write_file(report_path(flags), json.dump(1) + "\n");
  if (flags.json) return print_now(json.dump(2) + "\n");
  say_names("kept as they are, columns that are no whole groups", report.kept);
  say_names("q8_0 instead, columns that are no whole blocks of 256", report.wider);
  if (report.shards_found > 0) fmt::print(stderr, "{} files of an earlier run were kept.\n", report.shards_found);
  print_now(report.text() + (comparison ? "\n" + comparison_text(*comparison) : "") +
            fmt::format("Wrote {}\n", flags.out));
}

void add_rare_options(CLI::App& command, QuantizeFlags& flags) {
  CLI::Option* rare = command
                          .add_option("--rare-experts", flags.rare.format,
                                      "Fewer bits for the experts that --expert-profile says are used least, as "
                                      "int2-g32-asym or int3-g32; the others as --to says")
                          ->type_name("FORMAT");
  command.add_option("--expert-profile", flags.expert_profile, "How often each is used, from: puna experts profile")
      ->needs(rare)
      ->type_name("FILE");
  command.add_option("--rare-share", flags.rare.share, "Share of each layer's experts that are rare")
      ->needs(rare)
      ->check(CLI::Range(0.0, 1.0))
      ->type_name("X")
      ->capture_default_str();
  command
      .add_option("--rare-max-error", flags.rare.max_error,
                  "Relative error of an expert's weights above which it is as --to says")
      ->needs(rare)
      ->check(CLI::Range(0.0, 1.0))
      ->type_name("X")
      ->capture_default_str();
}

}  // namespace

void add_quantize(CLI::App& app) {
  auto flags = std::make_shared<QuantizeFlags>();
  CLI::App* command = app.add_subcommand("quantize", "Write a model with INT4, INT8 or FP8 weights");
  command->add_option("--model", flags->model, "Directory, .gguf, .safetensors or .pth")->type_name("PATH");
  command
      ->add_option(
          "--to", flags->to,
          "int4, int8, fp8, mixed (routed experts int4, the rest int8); for GGUF q8_0, q4_0, q4_k; or a file of rules")
      ->required()
      ->type_name("PRESET|RULES.toml");
  command->add_option("--out", flags->out, "Directory to write; after a stop, the same one goes on. A file for GGUF")
      ->type_name("PATH");
  command->add_option("--format", flags->format, "compressed-tensors (Hugging Face) or gguf")
      ->check(CLI::IsMember({"compressed-tensors", "gguf"}))
      ->type_name("FORMAT")
      ->capture_default_str();
  command->add_option("--calibrate", flags->calibrate, "Text, UTF-8, that tells which weights matter")
      ->type_name("FILE");
  command->add_option("--text", flags->text, "Also compare original and output on this text, UTF-8")->type_name("FILE");
  add_rare_options(*command, *flags);
  command->add_option("--threads", flags->threads, "CPU threads; 0: one per physical core")
      ->check(not_negative)
      ->type_name("N")
      ->capture_default_str();
  command->add_flag("--json", flags->json, "The report as one JSON object");
  command->footer(
      "The output is a Hugging Face directory in compressed-tensors layout, or a GGUF file. It is written tensor by\n"
      "tensor, so that the model may be larger than memory. Rules: docs/QUANTIZATION.md.\n"
      "Examples:\n"
      "  puna quantize --model ./scout --to int4 --out ./scout-int4 --text book.txt\n"
      "  puna quantize --model ./scout --to int4 --out ./scout-int42 --rare-experts int2-g32-asym --expert-profile "
      "notes.experts.json\n"
      "  puna quantize --model ./scout --to q4_k --format gguf --out scout-q4_k.gguf");
  command->callback([flags] { run_quantize(*flags); });
}

}  // namespace puna::cli
