// puna inspect: what a model is, from its config alone, or with --load by really loading it.
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "arch/config.h"
#include "arch/describe.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/suggest.h"
#include "checkpoint/model_source.h"
#include "checkpoint/scalar_type.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "model/model.h"

namespace puna::cli {
namespace {

struct InspectOptions {
  std::string model;
  bool json = false;
  bool load = false;
};

struct LoadReport {
  double open_ms;
  double load_ms;
  int64_t stored_bytes;
  int64_t resident_bytes;
};

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

// One byte of every page, so that mapped weights are resident too.
void touch_pages(const at::Tensor& weight) {
  constexpr size_t kPage = 4096;
  const auto* bytes = static_cast<const volatile char*>(weight.const_data_ptr());
  for (size_t i = 0; i < weight.nbytes(); i += kPage) (void)bytes[i];
}

std::unique_ptr<checkpoint::ModelSource> open_model(const std::string& name) {
  if (!std::filesystem::exists(name)) {
    const std::string nearest = nearest_name(name, arch::preset_names());
    fail("inspect", "'{}' is no file, directory or preset{}", name,
         nearest.empty() ? "; the presets are tiny, scout, maverick and behemoth"
                         : fmt::format("; did you mean '{}'?", nearest));
  }
  return checkpoint::open_model(name);
}

/// How a checkpoint's weights are stored, and what they become in memory.
struct Storage {
  std::string format, dtype;
  model::WeightBytes weights;
};

model::LoadOptions options_of(const checkpoint::ModelSource& source) {
  return {.dtype = checkpoint::default_compute_type(source.config().dtype)};
}

Storage storage_of(const checkpoint::ModelSource& source) {
  const model::LoadOptions options = options_of(source);
  return {source.format(), std::string(dtype_name(checkpoint::dtype_of(options.dtype).value())),
          model::weight_bytes(source, options)};
}

void print_storage(const Storage& storage) {
  const model::WeightBytes& weights = storage.weights;
  fmt::print("\nstored as {}\n", storage.format);
  if (weights.num_packed == 0 && weights.num_dequantised == 0) return;
  std::vector<std::string> parts;
  if (weights.num_packed > 0)
    parts.push_back(fmt::format("{} of {} weights as they are stored, laid out for the kernels",
                                format_bytes(weights.packed), weights.num_packed));
  if (weights.num_dequantised > 0)
    parts.push_back(fmt::format("{} of {} weights dequantised to {} (no kernel multiplies their format)",
                                format_bytes(weights.dequantised), weights.num_dequantised, storage.dtype));
  parts.push_back(fmt::format("{} in {}", format_bytes(weights.dense), storage.dtype));
  fmt::print("in memory: {}\n", fmt::join(parts, ", "));
}

LoadReport load_weights(const checkpoint::ModelSource& source, double open_ms) {
  const auto start = std::chrono::steady_clock::now();
  const auto model = model::Model::load(source, options_of(source));
  for (const auto& [name, weight] : model->weights())
    if (!weight.packed) touch_pages(weight.dense);
  return {.open_ms = open_ms,
          .load_ms = milliseconds_since(start),
          .stored_bytes = source.stored_bytes(),
          .resident_bytes = resident_memory_bytes()};
}

void print_json(OrderedJson json, const std::optional<Storage>& storage, const std::optional<LoadReport>& report) {
  if (storage) {
    json["format"] = storage->format;
    json["memory"] = {{"packed_bytes", storage->weights.packed},
                      {"dequantised_bytes", storage->weights.dequantised},
                      {"dense_bytes", storage->weights.dense}};
  }
  if (report)
    json["load"] = {{"open_ms", report->open_ms},
                    {"load_ms", report->load_ms},
                    {"stored_bytes", report->stored_bytes},
                    {"resident_bytes", report->resident_bytes}};
  fmt::print("{}\n", json.dump(2, ' ', false, OrderedJson::error_handler_t::replace));
}

void print_text(const std::string& text, const std::optional<Storage>& storage,
                const std::optional<LoadReport>& report) {
  fmt::print("{}", text);
  if (storage) print_storage(*storage);
  if (report)
    fmt::print(
        "opened in {:.0f} ms, all weights loaded and touched in {:.0f} ms\nfile bytes {} ({}), resident {} ({})\n",
        report->open_ms, report->load_ms, report->stored_bytes, format_bytes(report->stored_bytes),
        report->resident_bytes, format_bytes(report->resident_bytes));
}

void inspect(const InspectOptions& flags) {
  InspectOptions options = flags;
  ModelOptions chosen;
  chosen.model = flags.model;
  options.model = model_or_shipped(chosen);
  // A checkpoint that is called like a preset is the checkpoint.
  std::error_code ec;
  const bool is_path = std::filesystem::exists(options.model, ec);
  std::optional<arch::Llama4Config> config = is_path ? std::nullopt : arch::preset(options.model);
  std::optional<Storage> storage;
  std::optional<LoadReport> report;
  if (config) {
    if (options.load) throw UsageError("inspect", "--load needs a checkpoint; a preset has no weights");
  } else {
    const auto start = std::chrono::steady_clock::now();
    const auto source = open_model(options.model);
    const double open_ms = milliseconds_since(start);
    config = source->config();
    storage = storage_of(*source);
    if (options.load) report = load_weights(*source, open_ms);
  }
  if (options.json)
    print_json(arch::describe_json(*config, options.model), storage, report);
  else
    print_text(arch::describe_text(*config, options.model), storage, report);
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command = app.add_subcommand("inspect", "Show what a model is: config, layers, sizes, cache, FLOPs");
  command
      ->add_option(
          "model", options->model,
          "Checkpoint directory or file, or tiny, scout, maverick, behemoth; absent: the model that comes with Puna")
      ->type_name("MODEL");
  command->add_flag("--json", options->json, "Print JSON");
  command->add_flag("--load", options->load, "Load all weights too; print file bytes, resident bytes and times");
  command->footer("Example: puna inspect scout\n");
  command->callback([options] { inspect(*options); });
}

}  // namespace puna::cli
