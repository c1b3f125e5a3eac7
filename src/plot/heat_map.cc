#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "io/text.h"
#include "plot/panels.h"

namespace puna::plot {
namespace {

constexpr double kBarWidth = 12, kBarGap = 14;

double widest(const std::vector<std::string>& names) {
  double width = 0;
  for (const std::string& name : names) width = std::max(width, text_width(name, kTickSize));
  return width;
}

/// Every how manieth name fits when each needs `needed` pixels and cells have `cell`.
size_t stride(double needed, double cell) { return static_cast<size_t>(std::max(1.0, std::ceil(needed / cell))); }

std::pair<double, double> ends(const HeatMap& map) {
  Extent extent;
  extent.add(map.values, false);
  return range_of(extent, false, map.min, map.max, 0);
}

class HeatDrawing {
 public:
  HeatDrawing(Canvas& canvas, const HeatMap& map, const Box& area)
      : canvas_(canvas),
        map_(map),
        area_(area),
        ends_(ends(map)),
        cell_width_(area.width / static_cast<double>(map.columns.size())),
        cell_height_(area.height / static_cast<double>(map.rows.size())) {}

  void cells() {
    for (size_t row = 0; row < map_.rows.size(); ++row)
      for (size_t column = 0; column < map_.columns.size(); ++column) {
        const double value = map_.values[row * map_.columns.size() + column];
        const Box box = cell(row, column);
        canvas_.rectangle(box, std::isfinite(value) ? palette(part(value)) : kNoData);
        if (map_.show_values && std::isfinite(value)) number(box, value);
      }
  }

  void names() {
    const size_t every_row = stride(kTickSize + 3, cell_height_);
    for (size_t row = 0; row < map_.rows.size(); row += every_row) {
      const Box box = cell(row, 0);
      canvas_.text({area_.x - 6, box.y + box.height / 2 + 4}, fitted(map_.rows[row], kTickSize, 120),
                   {kTickSize, kFaintText, Anchor::kEnd});
    }
    const size_t every_column = stride(widest(map_.columns) + 10, cell_width_);
    for (size_t column = 0; column < map_.columns.size(); column += every_column) {
      const Box box = cell(0, column);
      canvas_.text({box.x + box.width / 2, area_.bottom() + 15}, map_.columns[column],
                   {kTickSize, kFaintText, Anchor::kMiddle});
    }
  }

  void color_bar(const Box& box) {
    constexpr int kSteps = 64;
    const double x = area_.right() + kBarGap;
    for (int i = 0; i < kSteps; ++i) {
      const double from = std::round(area_.bottom() - area_.height * (i + 1) / kSteps);
      const double to = std::round(area_.bottom() - area_.height * i / kSteps);
      canvas_.rectangle({x, from, kBarWidth, to - from}, palette((i + 0.5) / kSteps));
    }
    const Scale scale(ends_.first, ends_.second, false, area_.bottom(), area_.y);
    for (const Tick& tick : scale.ticks(static_cast<int>(area_.height / 45)))
      canvas_.text({x + kBarWidth + 4, scale.pixel(tick.value) + 4}, tick.label, {kTickSize, kFaintText});
    canvas_.text({box.right() - 6, area_.y + area_.height / 2}, fitted(map_.value_label, kTickSize, area_.height),
                 {kTickSize, kText, Anchor::kMiddle, false, true});
  }

 private:
  double part(double value) const {
    return (std::clamp(value, ends_.first, ends_.second) - ends_.first) / (ends_.second - ends_.first);
  }

  /// Whole pixels, so that neighbours meet.
  Box cell(size_t row, size_t column) const {
    const size_t from_top = map_.first_row_at_bottom ? map_.rows.size() - 1 - row : row;
    const double x = std::round(area_.x + cell_width_ * static_cast<double>(column));
    const double y = std::round(area_.y + cell_height_ * static_cast<double>(from_top));
    return {x, y, std::round(area_.x + cell_width_ * static_cast<double>(column + 1)) - x,
            std::round(area_.y + cell_height_ * static_cast<double>(from_top + 1)) - y};
  }

  void number(const Box& box, double value) {
    const std::string text = tick_label(value, (ends_.second - ends_.first) / 100);
    if (text_width(text, kTickSize) + 4 > box.width || kTickSize + 4 > box.height) return;
    canvas_.text({box.x + box.width / 2, box.y + box.height / 2 + 4}, text,
                 {kTickSize, part(value) < 0.6 ? kWhite : kText, Anchor::kMiddle});
  }

  Canvas& canvas_;
  const HeatMap& map_;
  Box area_;
  std::pair<double, double> ends_;
  double cell_width_, cell_height_;
};

}  // namespace

void check(const HeatMap& map) {
  PUNA_CHECK(map.values.size() == map.rows.size() * map.columns.size(), "'{}' has {} rows, {} columns and {} values",
             map.title, map.rows.size(), map.columns.size(), map.values.size());
  Extent extent;
  extent.add(map.values, false);
  if (extent.empty()) fail("plot", "'{}' has no finite number to draw", io::printable(map.title));
}

void draw(Canvas& canvas, const HeatMap& map, const Box& box) {
  const double left = 30 + std::min(widest(map.rows), 120.0), right = kBarGap + kBarWidth + 58;
  const Box area{box.x + left, box.y + 30, std::max(box.width - left - right, 20.0), std::max(box.height - 72, 20.0)};
  canvas.text({box.x + 12, box.y + 18}, fitted(map.title, kTitleSize, box.width - 24),
              {kTitleSize, kText, Anchor::kStart, true});
  HeatDrawing drawing(canvas, map, area);
  drawing.cells();
  drawing.names();
  drawing.color_bar(box);
  draw_axis_labels(canvas, box, area, map.x_label, map.y_label);
}

}  // namespace puna::plot
