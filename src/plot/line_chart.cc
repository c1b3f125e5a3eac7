#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "io/text.h"
#include "plot/panels.h"

namespace puna::plot {
namespace {

constexpr size_t kFewPoints = 30;  // so few are drawn as dots too
constexpr double kSample = 18, kEntryGap = 14, kLegendRow = 16;

Extent extent_of(const LineChart& chart, bool vertical) {
  Extent extent;
  const bool positive = vertical ? chart.y.log : chart.x.log;
  for (const Series& series : chart.series) {
    if (!vertical) {
      extent.add(series.x, positive);
      continue;
    }
    extent.add(series.y, positive);
    extent.add(series.low, positive);
    extent.add(series.high, positive);
  }
  return extent;
}

/// Series that share a colour take none from the others.
Color color_of(const LineChart& chart, size_t index) {
  size_t count = 0, place = 0;
  const size_t owner = chart.series[index].color_of.value_or(index);
  for (size_t i = 0; i < chart.series.size(); ++i) {
    if (chart.series[i].color_of) continue;
    if (i < owner) ++place;
    ++count;
  }
  return series_color(place, count);
}

struct Entry {
  std::string name;
  size_t series;
  double x;
  int row;
};

/// Places of the legend's entries, in as many rows as they need.
std::vector<Entry> legend_of(const LineChart& chart, double width) {
  std::vector<Entry> entries;
  double x = 0;
  int row = 0;
  for (size_t i = 0; i < chart.series.size(); ++i) {
    if (chart.series[i].name.empty()) continue;
    const std::string name = fitted(chart.series[i].name, kTickSize, width - kSample - kEntryGap);
    const double needed = kSample + 5 + text_width(name, kTickSize) + kEntryGap;
    if (x > 0 && x + needed > width) {
      x = 0;
      ++row;
    }
    entries.push_back({name, i, x, row});
    x += needed;
  }
  return entries;
}

class LineDrawing {
 public:
  LineDrawing(Canvas& canvas, const LineChart& chart, const Box& area)
      : canvas_(canvas), chart_(chart), area_(area), x_(scale(chart.x, false)), y_(scale(chart.y, true)) {}

  void grid() {
    for (const Tick& tick : x_.ticks(static_cast<int>(area_.width / 80))) {
      const double x = x_.pixel(tick.value);
      canvas_.line(std::vector<Point>{{x, area_.y}, {x, area_.bottom()}}, {kGrid});
      if (!tick.label.empty())
        canvas_.text({x, area_.bottom() + 15}, tick.label, {kTickSize, kFaintText, Anchor::kMiddle});
    }
    for (const Tick& tick : y_.ticks(y_ticks(area_.height))) {
      const double y = y_.pixel(tick.value);
      canvas_.line(std::vector<Point>{{area_.x, y}, {area_.right(), y}}, {kGrid});
      if (!tick.label.empty()) canvas_.text({area_.x - 6, y + 4}, tick.label, {kTickSize, kFaintText, Anchor::kEnd});
    }
    canvas_.line(std::vector<Point>{{area_.x, area_.y}, {area_.x, area_.bottom()}, {area_.right(), area_.bottom()}},
                 {kFrame});
  }

  void series() {
    canvas_.clip({area_.x - 2, area_.y - 2, area_.width + 4, area_.height + 4});
    for (size_t i = 0; i < chart_.series.size(); ++i) band(chart_.series[i], color(i));
    for (size_t i = 0; i < chart_.series.size(); ++i)
      if (chart_.series[i].smoothing > 0)
        curve(chart_.series[i], chart_.series[i].y, {color(i), 1, 0.25, chart_.series[i].dashed});
    for (size_t i = 0; i < chart_.series.size(); ++i) {
      const Stroke stroke{color(i), 1.8, 1, chart_.series[i].dashed};
      curve(chart_.series[i], smoothed(chart_.series[i].y, chart_.series[i].smoothing), stroke);
    }
    canvas_.unclip();
  }

  void marks() {
    for (const Mark& mark : chart_.marks) {
      if (!x_.can_show(mark.x) || !x_.contains(mark.x)) continue;
      const double x = x_.pixel(mark.x);
      canvas_.line(std::vector<Point>{{x, area_.y}, {x, area_.bottom()}}, {kFrame, 1, 1, true});
      canvas_.text({x + 4, area_.y + 11}, fitted(mark.label, 10, area_.right() - x - 4), {10, kFaintText});
    }
  }

  static int y_ticks(double height) { return static_cast<int>(height / 45); }

 private:
  Scale scale(const Axis& axis, bool vertical) const {
    const auto [low, high] = range_of(extent_of(chart_, vertical), axis.log, axis.min, axis.max, vertical ? 0.05 : 0);
    return vertical ? Scale(low, high, axis.log, area_.bottom(), area_.y)
                    : Scale(low, high, axis.log, area_.x, area_.right());
  }

  Color color(size_t i) const { return color_of(chart_, i); }

  /// Runs of points without a gap between them.
  template <typename Draw>
  void runs(const Series& series, std::span<const double> y, const Draw& draw) const {
    std::vector<Point> points;
    for (size_t i = 0; i < y.size(); ++i) {
      if (x_.can_show(series.x[i]) && y_.can_show(y[i])) {
        points.push_back({x_.pixel(series.x[i]), y_.pixel(y[i])});
        continue;
      }
      if (!points.empty()) draw(points);
      points.clear();
    }
    if (!points.empty()) draw(points);
  }

  void curve(const Series& series, std::span<const double> y, const Stroke& stroke) {
    const bool few = y.size() <= kFewPoints && stroke.opacity == 1;
    runs(series, y, [&](const std::vector<Point>& points) {
      if (points.size() > 1) canvas_.line(points, stroke);
      for (size_t i = 0; (few || points.size() == 1) && i < points.size(); ++i)
        canvas_.dot(points[i], stroke.width * 1.4, stroke.color);
    });
  }

  void band(const Series& series, Color color) {
    std::vector<Point> above, below;
    const auto draw = [&] {
      above.insert(above.end(), below.rbegin(), below.rend());
      if (above.size() >= 4) canvas_.polygon(above, color, 0.18);
      above.clear();
      below.clear();
    };
    for (size_t i = 0; i < series.low.size(); ++i) {
      if (!x_.can_show(series.x[i]) || !y_.can_show(series.low[i]) || !y_.can_show(series.high[i])) {
        draw();
        continue;
      }
      above.push_back({x_.pixel(series.x[i]), y_.pixel(series.high[i])});
      below.push_back({x_.pixel(series.x[i]), y_.pixel(series.low[i])});
    }
    draw();
  }

  Canvas& canvas_;
  const LineChart& chart_;
  Box area_;
  Scale x_, y_;
};

/// What the labels of the y axis need. The ticks do not depend on where the axis lies, only on its length.
double tick_width(const LineChart& chart, double height) {
  const auto [low, high] = range_of(extent_of(chart, true), chart.y.log, chart.y.min, chart.y.max, 0.05);
  double width = 0;
  for (const Tick& tick : Scale(low, high, chart.y.log, height, 0).ticks(LineDrawing::y_ticks(height)))
    width = std::max(width, text_width(tick.label, kTickSize));
  return width;
}

}  // namespace

std::vector<double> smoothed(std::span<const double> values, double weight) {
  std::vector<double> out(values.begin(), values.end());
  double mean = 0, total = 0;
  for (double& value : out) {
    if (!std::isfinite(value)) continue;
    mean = weight * mean + (1 - weight) * value;
    total = weight * total + (1 - weight);
    value = mean / total;
  }
  return out;
}

void check(const LineChart& chart) {
  for (const Series& series : chart.series) {
    const size_t points = series.x.size();
    PUNA_CHECK(series.smoothing >= 0 && series.smoothing < 1, "smoothing {}", series.smoothing);
    PUNA_CHECK(series.y.size() == points, "'{}' has {} x and {} y", series.name, points, series.y.size());
    PUNA_CHECK(!series.color_of || (*series.color_of < chart.series.size() && !chart.series[*series.color_of].color_of),
               "'{}' shares the colour of no series", series.name);
    PUNA_CHECK(series.low.size() == series.high.size() && (series.low.empty() || series.low.size() == points),
               "'{}' has {} points and a band of {} and {}", series.name, points, series.low.size(),
               series.high.size());
  }
  if (extent_of(chart, false).empty() || extent_of(chart, true).empty())
    fail("plot", "'{}' has no {}finite number to draw", io::printable(chart.title),
         chart.y.log || chart.x.log ? "positive and " : "");
}

void draw(Canvas& canvas, const LineChart& chart, const Box& box) {
  const auto legend = legend_of(chart, box.width - 30);
  const double top = 28 + (legend.empty() ? 0 : 4 + kLegendRow * (legend.back().row + 1));
  const double height = std::max(box.height - top - 42, 20.0);
  const double left = 30 + tick_width(chart, height);
  const Box area{box.x + left, box.y + top, std::max(box.width - left - 18, 20.0), height};

  canvas.text({box.x + 12, box.y + 18}, fitted(chart.title, kTitleSize, box.width - 24),
              {kTitleSize, kText, Anchor::kStart, true});
  for (const Entry& entry : legend) {
    const double x = box.x + 12 + entry.x, y = box.y + 38 + kLegendRow * entry.row;
    const Stroke stroke{color_of(chart, entry.series), 2.5, 1, chart.series[entry.series].dashed};
    canvas.line(std::vector<Point>{{x, y - 4}, {x + kSample, y - 4}}, stroke);
    canvas.text({x + kSample + 5, y}, entry.name, {kTickSize, kText});
  }
  LineDrawing drawing(canvas, chart, area);
  drawing.grid();
  drawing.series();
  drawing.marks();
  draw_axis_labels(canvas, box, area, chart.x.label, chart.y.label);
}

}  // namespace puna::plot
