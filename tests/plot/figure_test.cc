// Pictures: what is in them, that they are well-formed whatever the data and names are, and that nothing is drawn of
// nothing.
#include "plot/figure.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <regex>

#include "base/error.h"
#include "io/file.h"
#include "io/image.h"
#include "io/text.h"
#include "tests/plot/support.h"
#include "tests/support/golden.h"

namespace puna::plot {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();

LineChart chart(std::vector<double> y) {
  LineChart chart;
  chart.title = "The title";
  chart.x.label = "step";
  chart.y.label = "loss (nats)";
  Series series;
  series.name = "a line";
  for (size_t i = 0; i < y.size(); ++i) series.x.push_back(static_cast<double>(i));
  series.y = std::move(y);
  chart.series.push_back(series);
  return chart;
}

HeatMap map(std::vector<double> values, size_t rows, size_t columns) {
  HeatMap map;
  map.title = "Heat";
  map.x_label = "length (tokens)";
  map.y_label = "depth";
  map.value_label = "accuracy";
  for (size_t i = 0; i < rows; ++i) map.rows.push_back("row " + std::to_string(i));
  for (size_t i = 0; i < columns; ++i) map.columns.push_back("column " + std::to_string(i));
  map.values = std::move(values);
  return map;
}

Figure figure_of(Panel panel) {
  Figure figure;
  figure.panels.push_back(std::move(panel));
  return figure;
}

std::string svg_of(Panel panel) {
  std::string svg = to_svg(figure_of(std::move(panel)));
  EXPECT_EQ(xml_error(svg), "") << svg;
  return svg;
}

std::string message_of(const Figure& figure) {
  try {
    to_svg(figure);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(LineChart, HoldsItsLabelsAndAllItsPoints) {
  std::vector<double> y;
  for (int i = 0; i < 137; ++i) y.push_back(std::sin(i * 0.1));
  const std::string svg = svg_of(chart(y));
  for (const char* label : {">The title<", ">step<", ">loss (nats)<", ">a line<", ">100<", ">-0.5<"})
    EXPECT_THAT(svg, HasSubstr(label));
  EXPECT_THAT(line_sizes(svg, kFirstColor), ElementsAre(2, 137));  // the legend's sample, the line
}

TEST(LineChart, PointsAreWhereTheyShouldBe) {
  LineChart line = chart({0, 5, 10});
  line.y.min = 0;
  line.y.max = 10;
  const auto points = points_of(svg_of(line), kFirstColor, 1);
  ASSERT_EQ(points.size(), 3u);
  EXPECT_NEAR(points[1].first, (points[0].first + points[2].first) / 2, 0.011);
  EXPECT_NEAR(points[1].second, (points[0].second + points[2].second) / 2, 0.011);
  EXPECT_GT(points[0].second, points[2].second);  // up is less
  line.y.log = true;
  line.y.min = std::nullopt;
  line.series[0].y = {1, 10, 100};
  line.y.max = 100;
  const auto logarithmic = points_of(svg_of(line), kFirstColor, 1);
  ASSERT_EQ(logarithmic.size(), 3u);
  EXPECT_NEAR(logarithmic[1].second, (logarithmic[0].second + logarithmic[2].second) / 2, 0.011);
}

TEST(LineChart, WhatIsNotFiniteIsAGap) {
  std::vector<double> y(100, 1.0);
  y[30] = kNaN;
  y[60] = kInf;  // and what is too large to draw
  y[99] = 1e301;
  y[62] = -kInf;  // one point alone between two gaps
  const std::string svg = svg_of(chart(y));
  EXPECT_THAT(line_sizes(svg, kFirstColor), ElementsAre(2, 30, 29, 36));
  EXPECT_EQ(count_of(svg, "<circle"), 1);
  EXPECT_THAT(svg, AllOf(Not(HasSubstr("nan")), Not(HasSubstr("inf"))));
}

TEST(LineChart, OnALogarithmicAxisZeroAndLessAreGaps) {
  LineChart line = chart({1, 10, 0, 100, 1000, -5});
  line.y.log = true;
  const std::string svg = svg_of(line);
  EXPECT_THAT(line_sizes(svg, kFirstColor), ElementsAre(2, 2, 2));
  for (const char* label : {">1<", ">10<", ">100<", ">1k<"}) EXPECT_THAT(svg, HasSubstr(label));
  line.series[0].y = {0, -1, 0, -2, 0, 0};
  EXPECT_THAT(message_of(figure_of(line)), HasSubstr("no positive and finite number"));
}

TEST(LineChart, SmoothingKeepsTheRawLineFaint) {
  LineChart line = chart(std::vector<double>(50, 2.0));
  line.series[0].y[20] = 3;
  line.series[0].y[21] = kNaN;
  line.series[0].smoothing = 0.9;
  const std::string svg = svg_of(line);
  EXPECT_THAT(line_sizes(svg, kFirstColor), ElementsAre(2, 21, 28, 21, 28));
  EXPECT_EQ(count_of(svg, "stroke-opacity"), 2);
  const auto raw = points_of(svg, kFirstColor, 1), smooth = points_of(svg, kFirstColor, 3);
  // A constant stays itself from the first point on, and of the peak a tenth is left, over 1 - 0.9^21.
  EXPECT_NEAR(smooth[0].second, raw[0].second, 0.011);
  const double peak = raw[0].second - raw[20].second;
  EXPECT_NEAR(smooth[0].second - smooth[20].second, peak * 0.1 / (1 - std::pow(0.9, 21)), 0.03);
}

TEST(LineChart, BandsAndMarksAreDrawn) {
  LineChart line = chart({1, 2, 3, 4, 5, 6});
  line.series[0].low = {0, 1, kNaN, 3, 4, 5};
  line.series[0].high = {2, 3, 4, 5, 6, 7};
  line.marks = {{3, "chat stage"}, {99, "not in the picture"}};
  const std::string svg = svg_of(line);
  EXPECT_EQ(count_of(svg, "<polygon"), 2);
  EXPECT_THAT(svg, AllOf(HasSubstr(">chat stage<"), Not(HasSubstr("not in the"))));
}

TEST(LineChart, SeriesHaveColoursOfTheirOwnUnlessTheyShareOne) {
  LineChart line = chart({1, 2});
  for (int i = 0; i < 11; ++i) line.series.push_back(line.series[0]);
  std::set<std::string> colors;
  const std::string svg = svg_of(line);
  const std::regex stroke("polyline fill=\"none\" stroke=\"(#[0-9a-f]*)\" stroke-width=\"1.8\"");
  for (std::sregex_iterator match(svg.begin(), svg.end(), stroke), end; match != end; ++match)
    colors.insert((*match)[1]);
  EXPECT_EQ(colors.size(), 12u);
  line.series.resize(2);
  line.series[1].color_of = 0;
  EXPECT_THAT(line_sizes(svg_of(line), kFirstColor), ElementsAre(2, 2, 2, 2));
}

TEST(HeatMap, HasOneCellPerValueAndNumbersInThem) {
  HeatMap heat = map({0, 0.25, 0.5, kNaN, 0.75, 1}, 2, 3);
  const int cells_without = count_of(svg_of(heat), "<rect");
  heat.show_values = true;
  const std::string svg = svg_of(heat);
  EXPECT_EQ(count_of(svg, "<rect"), cells_without);
  EXPECT_EQ(cells_without, 1 + 6 + 64);  // the background, the cells, the colour bar
  for (const char* label : {">Heat<", ">length (tokens)<", ">depth<", ">accuracy<", ">row 1<", ">column 2<", ">0.25<"})
    EXPECT_THAT(svg, HasSubstr(label));
  EXPECT_EQ(count_of(svg, "#ececec"), 1);  // no data
  EXPECT_GE(count_of(svg, "#440154"), 1);  // the least
  EXPECT_GE(count_of(svg, "#fde725"), 1);  // the greatest
}

TEST(HeatMap, FirstRowIsWhereItIsAskedToBe) {
  const auto y_of = [](const std::string& svg, const char* name) {
    const std::regex text("<text x=\"[0-9.]*\" y=\"([0-9.]*)\"[^>]*>" + std::string(name) + "<");
    std::smatch match;
    EXPECT_TRUE(std::regex_search(svg, match, text));
    return std::stod(match[1]);
  };
  HeatMap heat = map({0, 1}, 2, 1);
  const std::string above = svg_of(heat);
  EXPECT_LT(y_of(above, "row 0"), y_of(above, "row 1"));
  heat.first_row_at_bottom = true;
  const std::string below = svg_of(heat);
  EXPECT_GT(y_of(below, "row 0"), y_of(below, "row 1"));
}

TEST(HeatMap, NamesThatWouldNotFitAreLeftOut) {
  const std::string svg = svg_of(map(std::vector<double>(100 * 80, 0.5), 100, 80));
  EXPECT_THAT(svg, AllOf(HasSubstr(">row 0<"), Not(HasSubstr(">row 1<")), Not(HasSubstr(">column 1<"))));
}

TEST(Figure, OfNothingIsAnError) {
  EXPECT_THAT(message_of({}), HasSubstr("there is nothing to draw"));
  EXPECT_THAT(message_of(figure_of(chart({}))), HasSubstr("'The title' has no finite number"));
  EXPECT_THAT(message_of(figure_of(chart({kNaN, kInf}))), HasSubstr("'The title' has no finite number"));
  EXPECT_THAT(message_of(figure_of(LineChart{})), HasSubstr("no finite number"));
  EXPECT_THAT(message_of(figure_of(map({}, 0, 0))), HasSubstr("'Heat' has no finite number"));
  EXPECT_THAT(message_of(figure_of(map({kNaN}, 1, 1))), HasSubstr("'Heat' has no finite number"));
  Figure many;
  many.panels.assign(257, chart({1, 2}));
  EXPECT_THAT(message_of(many), HasSubstr("257 panels"));
  many.panels.resize(200);
  EXPECT_THAT(message_of(many), HasSubstr("more than 30000 a side"));
  EXPECT_THROW(to_svg(figure_of(map({1}, 1, 2))), InternalError);
}

TEST(Figure, OddNumbersAndNamesStayWellFormed) {
  const double huge = std::numeric_limits<double>::max(), tiny = std::numeric_limits<double>::denorm_min();
  for (const auto& y : std::vector<std::vector<double>>{{0},
                                                        {-3, -3},
                                                        {huge, 1},
                                                        {1e300, -1e300},
                                                        {tiny, 1},
                                                        {1e15, 1e15 + 1},
                                                        {1, 1 + 1e-15},
                                                        {1e-300, 1e300},
                                                        {-1e-7, 1e-7}})
    for (const bool log : {false, true}) {
      LineChart line = chart(y);
      line.y.log = log && std::any_of(y.begin(), y.end(), [&](double v) { return v > tiny; });
      line.series[0].smoothing = 0.5;
      const std::string svg = svg_of(line);
      EXPECT_LT(svg.size(), 10'000u) << fmt::format("{} {}", y[0], log);
      EXPECT_THAT(svg, AllOf(Not(HasSubstr("nan")), Not(HasSubstr("inf"))));
    }
  for (const std::string name : {"<script>alert(1)</script>", "a & b", "\"quoted'", "]]>", "\xFF\xFE",
                                 "nul \x01\x1B[31m", "\xEF\xBF\xBF \xEF\xB7\x90 \xF0\x9F\xBF\xBE", "caf\xC3\xA9"}) {
    LineChart line = chart({1, 2});
    line.title = line.x.label = line.series[0].name = name;
    line.marks = {{0.5, name}};
    HeatMap heat = map({1}, 1, 1);
    heat.rows = heat.columns = {name};
    heat.title = heat.value_label = name;
    Figure figure;
    figure.title = name;
    figure.panels = {line, heat};
    const std::string svg = to_svg(figure);
    EXPECT_EQ(xml_error(svg), "") << name;
    EXPECT_THAT(svg, Not(HasSubstr("<script")));
    EXPECT_TRUE(io::is_valid_utf8(svg));
    const test::TemporaryDirectory dir;
    EXPECT_NO_THROW(write_png(figure, dir.path() / "x.png"));
  }
}

TEST(Figure, PngDecodesWithItsSizeAndShowsTheSame) {
  const test::TemporaryDirectory dir;
  Figure figure;
  figure.columns = 2;
  figure.panel_width = 300;
  figure.panel_height = 200;
  figure.panels = {map({0, 1}, 1, 2), chart({1, 2, 3}), chart({3, 2, 1})};
  write_figure(figure, dir.path() / "a.png");
  const std::string bytes = io::read_file(dir.path() / "a.png", 1 << 24);
  const io::Image image = io::decode_image(std::as_bytes(std::span(bytes)), "a.png");
  EXPECT_EQ(image.width, 2 * (2 * 300 + 16));
  EXPECT_EQ(image.height, 2 * (2 * 200 + 16));
  const auto pixel = [&](int x, int y) {
    const auto* rgb = &image.rgb[3 * static_cast<size_t>(y * image.width + x)];
    return fmt::format("#{:02x}{:02x}{:02x}", rgb[0], rgb[1], rgb[2]);
  };
  EXPECT_EQ(pixel(0, 0), "#ffffff");
  const auto cells = rectangles_of(to_svg(figure));
  ASSERT_GE(cells.size(), 3u);
  for (const size_t cell : {1u, 2u})  // after the background
    EXPECT_EQ(pixel(static_cast<int>(2 * cells[cell].x) + 20, static_cast<int>(2 * cells[cell].y) + 20),
              cells[cell].color);
}

TEST(Figure, TheEndingDecidesTheFormat) {
  const test::TemporaryDirectory dir;
  write_figure(figure_of(chart({1, 2})), dir.path() / "a.svg");
  EXPECT_EQ(xml_error(io::read_file(dir.path() / "a.svg", 1 << 24)), "");
  for (const char* name : {"a.jpg", "a", "svg"})
    EXPECT_THROW(write_figure(figure_of(chart({1, 2})), dir.path() / name), Error);
  EXPECT_THROW(write_figure(figure_of(chart({1, 2})), dir.path() / "none/a.svg"), Error);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), {}), 1);
}

}  // namespace
}  // namespace puna::plot
