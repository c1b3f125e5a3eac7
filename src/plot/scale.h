// From numbers to pixels: ranges, ticks at round numbers, their labels, colours. Private to src/plot.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "plot/canvas.h"

namespace puna::plot {

struct Tick {
  double value = 0;
  std::string label;  // empty for the lines between those with numbers
};

/// Least and greatest number that can be drawn, of the positive ones alone when `positive`.
class Extent {
 public:
  void add(std::span<const double> values, bool positive);
  bool empty() const { return low_ > high_; }
  double low() const { return low_; }
  double high() const { return high_; }

 private:
  double low_ = 1, high_ = 0;
};

/// One axis of a chart.
class Scale {
 public:
  /// Pixels `from` to `to` are the ends of [low, high], low < high; both positive when `log`.
  Scale(double low, double high, bool log, double from, double to);

  double pixel(double value) const;
  /// False for what cannot be drawn: NaN, over 1e300 (infinities too), and below 1e-300 on a logarithmic axis.
  bool can_show(double value) const;
  bool contains(double value) const { return value >= low_ && value <= high_; }
  /// About `wanted` of them.
  std::vector<Tick> ticks(int wanted) const;

 private:
  std::vector<Tick> log_ticks(int wanted) const;
  double low_, high_;
  bool log_;
  double from_, to_;
};

/// The range to show for an extent: never empty, on a linear axis with a little room, and with given ends where given.
std::pair<double, double> range_of(const Extent& extent, bool log, std::optional<double> min, std::optional<double> max,
                                   double room);

/// Short and readable: "0.25", "1.5M", "1e-05". `step` is the distance of neighbours, which decides the decimals.
std::string tick_label(double value, double step);

/// One of `count` colours that also those can tell apart who see few; even along the palette below when there are many.
Color series_color(size_t index, size_t count);

/// Viridis: even in lightness from dark (0) to light (1), readable without colours.
Color palette(double position);

}  // namespace puna::plot
