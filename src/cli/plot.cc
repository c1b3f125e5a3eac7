#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/terminal.h"
#include "plot/figure.h"
#include "plot/run_charts.h"
#include "plot/run_metrics.h"

namespace puna::cli {
namespace {

namespace fs = std::filesystem;

struct PlotFlags {
  std::vector<std::string> runs, what;
  std::string out;
  double smoothing = 0.9;
};

/// Beside the metrics of the first run.
fs::path default_out(const fs::path& run) {
  std::error_code ec;
  return (fs::is_directory(run, ec) ? run : run.parent_path()) / "plot.svg";
}

void run_plot(const PlotFlags& flags) {
  if (!(flags.smoothing >= 0 && flags.smoothing <= 0.999))
    throw UsageError("--smoothing", fmt::format("must be 0 to 0.999, not {}", flags.smoothing));
  std::vector<plot::RunMetrics> runs;
  for (const std::string& run : flags.runs) {
    runs.push_back(plot::read_run(run));
    for (const std::string& note : runs.back().notes) fmt::print(stderr, "note: {}\n", for_screen(note));
  }
  const plot::Figure figure = plot::chart_runs(runs, flags.what, flags.smoothing);
  const fs::path out = flags.out.empty() ? default_out(flags.runs[0]) : fs::path(flags.out);
  plot::write_figure(figure, out);
  print_now(fmt::format("wrote {}\n", for_screen(out.string())));
}

std::string kinds_help() {
  std::string text = "Pictures for --what:\n";
  for (const plot::ChartKind& kind : plot::chart_kinds()) text += fmt::format("  {:<10}{}\n", kind.name, kind.what);
  return text;
}

}  // namespace

void add_plot(CLI::App& app) {
  auto flags = std::make_shared<PlotFlags>();
  CLI::App* command = app.add_subcommand("plot", "Draw what training runs measured, as SVG or PNG");
  command->add_option("RUN", flags->runs, "Directories of training runs, or metrics.jsonl files; curves are overlaid")
      ->type_name("")
      ->required();
  command->add_option("--out", flags->out, "The picture, .svg or .png; default: plot.svg in the first run's directory")
      ->type_name("FILE");
  command
      ->add_option("--what", flags->what,
                   "Pictures of those below, with commas between; default: all that there is data for")
      ->type_name("NAMES")
      ->delimiter(',')
      ->allow_extra_args(false);
  command
      ->add_option(
          "--smoothing", flags->smoothing,
          "Weight of the past in the lines of losses, 0 to 0.999; what was measured is drawn faint behind them")
      ->type_name("WEIGHT")
      ->capture_default_str();
  command->footer(kinds_help() + "\nExample:\n  puna plot runs/demo runs/baseline --what loss,experts --out loss.png");
  command->callback([flags] { run_plot(*flags); });
}

}  // namespace puna::cli
