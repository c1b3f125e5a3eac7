#include "plot/run_charts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/suggest.h"
#include "io/text.h"
#include "plot/scale.h"

namespace puna::plot {
namespace {

constexpr size_t kMaxPoints = 2000;  // of one line: more would not be seen

using Runs = std::span<const RunMetrics>;
using Panels = std::vector<Panel>;

bool has_data(const Curve& curve) {
  return std::any_of(curve.values.begin(), curve.values.end(), [](double value) { return std::isfinite(value); });
}

/// Long curves become means of neighbours; what is not finite stays a gap only where nothing else is.
Series series_of(std::string name, const Curve& curve) {
  Series series;
  series.name = std::move(name);
  const size_t size = curve.values.size(), per_point = (size + kMaxPoints - 1) / kMaxPoints;
  for (size_t begin = 0; begin < size; begin += per_point) {
    const size_t end = std::min(begin + per_point, size);
    double sum = 0;
    size_t count = 0;
    for (size_t i = begin; i < end; ++i) {
      if (!std::isfinite(curve.values[i])) continue;
      sum += curve.values[i];
      ++count;
    }
    series.x.push_back(curve.steps[begin + (end - begin) / 2]);
    series.y.push_back(count > 0 ? sum / static_cast<double>(count) : std::numeric_limits<double>::quiet_NaN());
  }
  return series;
}

LineChart chart_over_steps(const char* title, const char* y_label, Runs runs) {
  LineChart chart;
  chart.title = title;
  chart.x.label = "optimizer step";
  chart.y.label = y_label;
  if (runs.size() == 1 && runs[0].stages.size() > 1)
    for (const auto& [step, name] : runs[0].stages) chart.marks.push_back({step, name});
  return chart;
}

/// One line per run; without a legend when there is one alone.
void add_lines(LineChart& chart, Runs runs, Curve RunMetrics::*curve) {
  for (const RunMetrics& run : runs)
    if (has_data(run.*curve)) chart.series.push_back(series_of(runs.size() > 1 ? run.name : "", run.*curve));
}

Panels loss(Runs runs, double smoothing) {
  LineChart chart = chart_over_steps("Loss", "loss (nats per token)", runs);
  for (const RunMetrics& run : runs) {
    const std::string prefix = runs.size() > 1 ? run.name + ", " : "";
    std::optional<size_t> color;
    if (has_data(run.loss)) {
      color = chart.series.size();
      chart.series.push_back(series_of(prefix + "training", run.loss));
      chart.series.back().smoothing = smoothing;
    }
    if (!has_data(run.eval_loss)) continue;
    chart.series.push_back(series_of(prefix + "evaluation", run.eval_loss));
    chart.series.back().dashed = true;
    chart.series.back().color_of = color;
  }
  return chart.series.empty() ? Panels{} : Panels{chart};
}

Panels sources(Runs runs, double smoothing) {
  LineChart chart = chart_over_steps("Loss by source", "loss (nats per token)", runs);
  for (const RunMetrics& run : runs) {
    const std::string prefix = runs.size() > 1 ? run.name + ", " : "";
    for (const auto& [name, curve] : run.source_loss) {
      if (!has_data(curve)) continue;
      chart.series.push_back(series_of(prefix + name, curve));
      chart.series.back().smoothing = smoothing;
    }
    for (const auto& [name, curve] : run.eval_source_loss) {
      if (!has_data(curve)) continue;
      chart.series.push_back(series_of(prefix + name + ", evaluation", curve));
      chart.series.back().dashed = true;
    }
  }
  return chart.series.empty() ? Panels{} : Panels{chart};
}

Panels gradient(Runs runs, double) {
  LineChart chart = chart_over_steps("Gradient norm", "norm before clipping", runs);
  add_lines(chart, runs, &RunMetrics::grad_norm);
  Extent positive;
  for (const Series& series : chart.series) positive.add(series.y, true);
  chart.y.log = !positive.empty();
  return chart.series.empty() ? Panels{} : Panels{chart};
}

Panels rate(Runs runs, double) {
  LineChart chart = chart_over_steps("Learning rate", "learning rate", runs);
  add_lines(chart, runs, &RunMetrics::learning_rate);
  return chart.series.empty() ? Panels{} : Panels{chart};
}

Panels expert_maps(Runs runs, ExpertHistory LayerMetrics::*history, const char* title, const char* value_label) {
  Panels panels;
  for (const RunMetrics& run : runs)
    for (const auto& [index, layer] : run.layers) {
      const auto& columns = (layer.*history).columns();
      if (columns.empty()) continue;
      HeatMap map;
      map.title = fmt::format("{}{}, layer {}", runs.size() > 1 ? run.name + ": " : "", title, index);
      map.x_label = "optimizer step";
      map.y_label = "expert";
      map.value_label = value_label;
      map.min = 0;
      map.first_row_at_bottom = true;
      for (const auto& column : columns) map.columns.push_back(fmt::format("{:.0f}", column.step));
      for (size_t expert = 0; expert < columns[0].sums.size(); ++expert) {
        map.rows.push_back(std::to_string(expert));
        for (const auto& column : columns)
          map.values.push_back(column.sums[expert] / static_cast<double>(column.count));
      }
      const bool any = std::any_of(map.values.begin(), map.values.end(), [](double v) { return std::isfinite(v); });
      if (any) panels.emplace_back(std::move(map));
    }
  return panels;
}

Panels experts(Runs runs, double) { return expert_maps(runs, &LayerMetrics::load, "Expert load", "load (1 = even)"); }

Panels images(Runs runs, double) {
  return expert_maps(runs, &LayerMetrics::image_share, "Image tokens", "share of the expert's tokens");
}

void add_layers(Panels& panels, Runs runs, Curve LayerMetrics::*curve, const char* title, const char* y_label) {
  LineChart chart = chart_over_steps(title, y_label, runs);
  for (const RunMetrics& run : runs)
    for (const auto& [index, layer] : run.layers)
      if (has_data(layer.*curve))
        chart.series.push_back(
            series_of(fmt::format("{}layer {}", runs.size() > 1 ? run.name + ", " : "", index), layer.*curve));
  if (!chart.series.empty()) panels.emplace_back(std::move(chart));
}

Panels balance(Runs runs, double) {
  Panels panels;
  add_layers(panels, runs, &LayerMetrics::load_entropy, "Entropy of the expert load", "entropy (nats)");
  add_layers(panels, runs, &LayerMetrics::entropy, "Entropy of the router", "mean over tokens (nats)");
  add_layers(panels, runs, &LayerMetrics::max_violation, "Maximum violation", "largest load / even load - 1");
  return panels;
}

/// Mean of each bucket over the records that have it; NaN where none has.
std::vector<double> means_of_buckets(const std::vector<std::vector<double>>& records) {
  size_t size = 0;
  for (const auto& record : records) size = std::max(size, record.size());
  std::vector<double> means;
  for (size_t bucket = 0; bucket < size; ++bucket) {
    double sum = 0;
    int count = 0;
    for (const auto& record : records) {
      if (bucket >= record.size() || !std::isfinite(record[bucket])) continue;
      sum += record[bucket];
      ++count;
    }
    means.push_back(sum / count);
  }
  return means;
}

Panels position(Runs runs, double) {
  LineChart chart;
  chart.title = "Loss by position";
  chart.x.label = "position in the document (tokens)";
  chart.x.log = true;
  chart.y.label = "loss (nats per token)";
  for (const RunMetrics& run : runs) {
    Curve curve;
    curve.values = means_of_buckets(run.position_loss);
    for (size_t bucket = 0; bucket < curve.values.size(); ++bucket)
      curve.steps.push_back(std::exp2(static_cast<double>(bucket)));
    if (has_data(curve)) chart.series.push_back(series_of(runs.size() > 1 ? run.name : "", curve));
  }
  return chart.series.empty() ? Panels{} : Panels{chart};
}

struct Kind {
  ChartKind kind;
  Panels (*make)(Runs, double smoothing);
};

const std::vector<Kind>& kinds_with_makers() {
  static const std::vector<Kind> kinds = {
      {{"loss", "training and evaluation loss, the runs overlaid"}, loss},
      {{"sources", "loss by source, of training and of evaluation"}, sources},
      {{"gradient", "gradient norm"}, gradient},
      {{"rate", "learning rate"}, rate},
      {{"position", "loss by position, mean of the last records"}, position},
      {{"experts", "expert load over time, a heat map per layer"}, experts},
      {{"balance", "entropy and maximum violation of the load, per layer"}, balance},
      {{"images", "image tokens' share per expert over time"}, images},
  };
  return kinds;
}

}  // namespace

const std::vector<ChartKind>& chart_kinds() {
  static const std::vector<ChartKind> names = [] {
    std::vector<ChartKind> out;
    for (const Kind& kind : kinds_with_makers()) out.push_back(kind.kind);
    return out;
  }();
  return names;
}

Figure chart_runs(Runs runs, const std::vector<std::string>& kinds, double smoothing) {
  std::vector<std::string> known;
  for (const ChartKind& kind : chart_kinds()) known.push_back(kind.name);
  for (const std::string& asked : kinds) {
    if (std::find(known.begin(), known.end(), asked) != known.end()) continue;
    const std::string nearest = nearest_name(asked, known);
    fail("plot", "no picture '{}'{}; there are: {}", io::printable(asked),
         nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest), fmt::join(known, ", "));
  }
  Figure figure;
  figure.panel_width = 620;
  for (const Kind& kind : kinds_with_makers()) {
    const bool asked = std::find(kinds.begin(), kinds.end(), kind.kind.name) != kinds.end();
    if (!kinds.empty() && !asked) continue;
    Panels panels = kind.make(runs, smoothing);
    if (asked && panels.empty()) fail("plot", "the metrics have nothing to draw '{}' of", kind.kind.name);
    std::move(panels.begin(), panels.end(), std::back_inserter(figure.panels));
  }
  if (figure.panels.empty()) fail("plot", "the metrics have nothing to draw yet");
  if (runs.size() == 1) figure.title = runs[0].name;
  figure.columns = figure.panels.size() > 1 ? 2 : 1;
  return figure;
}

}  // namespace puna::plot
