// The drawing of one panel, and what panels share. Private to src/plot.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "plot/canvas.h"
#include "plot/figure.h"
#include "plot/scale.h"

namespace puna::plot {

constexpr Color kWhite{0xFF, 0xFF, 0xFF}, kText{0x33, 0x33, 0x33}, kFaintText{0x66, 0x66, 0x66},
    kGrid{0xE4, 0xE4, 0xE4}, kFrame{0x99, 0x99, 0x99}, kNoData{0xEC, 0xEC, 0xEC};
constexpr double kTitleSize = 14, kLabelSize = 12, kTickSize = 11;

/// Throw Error when there is no finite number to draw.
void check(const LineChart& chart);
void check(const HeatMap& map);

void draw(Canvas& canvas, const LineChart& chart, const Box& box);
void draw(Canvas& canvas, const HeatMap& map, const Box& box);

/// Exponential mean without the pull of its start; gaps stay gaps and count for nothing.
std::vector<double> smoothed(std::span<const double> values, double weight);

/// The names of both axes, beside and below `area`.
void draw_axis_labels(Canvas& canvas, const Box& box, const Box& area, const std::string& x_label,
                      const std::string& y_label);

}  // namespace puna::plot
