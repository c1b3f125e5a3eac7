// src/plot: pictures of numbers: line charts and heat maps, as SVG or PNG from one drawing code, light enough for a
// README. It takes plain numbers and knows nothing of models; run_metrics and run_charts are the one place that knows
// what a training run writes down.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace puna::plot {

struct Axis {
  std::string label;               // with the unit, such as "time (ms)"
  bool log = false;                // numbers of 0 and less are then gaps
  std::optional<double> min, max;  // default: what the data needs
};

/// One line. NaN and infinities are gaps.
struct Series {
  std::string name;               // in the legend; empty: not listed
  std::vector<double> x, y;       // [points]
  std::vector<double> low, high;  // [points] of a band such as a confidence interval; empty: none
  bool dashed = false;
  double smoothing = 0;  // of [0, 1): weight of the past in an exponential mean; what was given is then drawn faint
  std::optional<size_t> color_of;  // index of the series whose colour this one shares; default: a colour of its own
};

/// A vertical line with a word beside it, such as where a stage begins.
struct Mark {
  double x = 0;
  std::string label;
};

struct LineChart {
  std::string title;
  Axis x, y;
  std::vector<Series> series;
  std::vector<Mark> marks;
};

/// Coloured cells; row 0 is at the bottom when `first_row_at_bottom`, as for a quantity that grows upward.
struct HeatMap {
  std::string title;
  std::string x_label, y_label, value_label;  // with units; the last one is written at the colour bar
  std::vector<std::string> columns, rows;     // one name each; not all are shown where they would not fit
  std::vector<double> values;                 // [rows, columns]; NaN and infinities are cells without data
  std::optional<double> min, max;             // ends of the colour bar; default: of the data
  bool first_row_at_bottom = false;
  bool show_values = false;  // as numbers in the cells, where they fit
};

using Panel = std::variant<LineChart, HeatMap>;

struct Figure {
  std::string title;
  std::vector<Panel> panels;  // row by row
  int columns = 1;
  int panel_width = 720, panel_height = 360;  // pixels
};

/// The picture as text. Throws Error for a figure without panels or over the limits (256 panels, 30,000 pixels a side),
/// and for a panel without a finite number in it, by its title.
std::string to_svg(const Figure& figure);

/// Written whole. `scale` is PNG pixels per pixel. Throws Error as to_svg() does and when the file cannot be written.
void write_svg(const Figure& figure, const std::filesystem::path& path);
void write_png(const Figure& figure, const std::filesystem::path& path, double scale = 2);

/// By the ending: .svg or .png; Error for any other.
void write_figure(const Figure& figure, const std::filesystem::path& path);

}  // namespace puna::plot
