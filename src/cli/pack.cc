// puna pack: a model in the layout of the kernels, for instant start and for experts that stay on disk.
#include "cli/pack.h"

#include <ATen/Parallel.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "checkpoint/packed_file.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "engine/threads.h"
#include "io/file.h"

namespace puna::cli {
namespace {

namespace fs = std::filesystem;

struct PackFlags {
  std::string model, out;
  int threads = 0;
};

/// When a file of the model was last written.
fs::file_time_type newest_of(const fs::path& model) {
  if (!fs::is_directory(model)) return fs::last_write_time(model);
  fs::file_time_type newest = fs::file_time_type::min();
  for (const auto& entry : fs::directory_iterator(model))
    if (entry.is_regular_file()) newest = std::max(newest, entry.last_write_time());
  return newest;
}

void run_pack(const PackFlags& flags) {
  if (flags.model.empty()) throw UsageError("--model", "is missing; give the model with --model DIR");
  if (flags.out.empty()) throw UsageError("--out", "is missing; give the directory to write with --out DIR");
  engine::set_threads(flags.threads);
  const InterruptGuard interrupt;
  const auto source = checkpoint::open_model(flags.model);
  checkpoint::write_packed(flags.model, *source, flags.out, at::get_num_threads(), &interrupt.flag());
  const checkpoint::PackedModel packed(flags.out);
  int64_t rows = 0;
  for (const arch::ParamRow& row : packed.rows()) rows += packed.packed(row) != nullptr ? 1 : 0;
  print_now(fmt::format("Wrote {}: {}, {} of {} weights packed, {}\n", flags.out, format_bytes(packed.stored_bytes()),
                        rows, packed.rows().size(), packed.format()));
  if (rows == 0)
    fmt::print(stderr, "Nothing in {} is INT4, INT8, FP8 or BF16; ./puna quantize --model {} --to int4 makes it so.\n",
               flags.model, flags.model);
}

}  // namespace

std::string packed_beside(const std::string& model) {
  const auto source = checkpoint::open_model(model);
  const auto& rows = source->rows();
  if (std::ranges::any_of(rows, [&](const auto& row) { return source->packed(row) != nullptr; })) return model;
  if (std::ranges::none_of(rows, [&](const auto& row) { return checkpoint::is_packable(*source, row); }))
    fail(model, "has no INT4, INT8, FP8 or BF16 weights to pack; ./puna quantize --to int4 makes them");
  const std::string name = fs::path(model).has_filename() ? model : fs::path(model).parent_path().string();
  const fs::path packed = name + "-packed", made = fmt::format("{}.tmp.{}", packed.string(), getpid());
  if (io::path_exists(packed)) {
    if (!io::path_exists(packed / checkpoint::kPackedFile))
      fail(packed.string(), "is there and no packed model; name another directory with: puna pack");
    if (newest_of(packed / checkpoint::kPackedFile) > newest_of(model)) return packed.string();
  }
  say_aside(fmt::format("Packing {} into {}, once.", model, packed.string()));
  const InterruptGuard interrupt;
  try {
    checkpoint::write_packed(model, *source, made, at::get_num_threads(), &interrupt.flag());
    fs::remove_all(packed);
    fs::rename(made, packed);
  } catch (...) {
    std::error_code ec;
    fs::remove_all(made, ec);
    throw;
  }
  return packed.string();
}

void add_pack(CLI::App& app) {
  auto flags = std::make_shared<PackFlags>();
  CLI::App* command =
      app.add_subcommand("pack", "Write a model as the kernels use it: starts at once, experts may stay on disk");
  command->add_option("--model", flags->model, "A model with INT4, INT8, FP8 or BF16 weights")->type_name("PATH");
  command->add_option("--out", flags->out, "Directory to write")->type_name("DIR");
  command->add_option("--threads", flags->threads, "CPU threads; 0: one per physical core")
      ->check(not_negative)
      ->type_name("N")
      ->capture_default_str();
  command->footer(
      "The packed model is used like any other, and with --memory its experts may be more than fit. With --pack, other "
      "commands\nmake it beside the model, once.\n"
      "Example:\n  puna pack --model ./scout-int4 --out ./scout-packed\n  puna chat --model ./scout-packed --memory "
      "16GiB");
  command->callback([flags] { run_pack(*flags); });
}

}  // namespace puna::cli
