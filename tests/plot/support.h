// Looking into SVG text, for the tests of pictures.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace puna::plot {

constexpr const char* kFirstColor = "#0072b2";

/// What is wrong with the XML: tags that do not match, characters that must be escaped. Empty when it is well-formed.
std::string xml_error(const std::string& xml);

int count_of(const std::string& text, const std::string& part);

/// Points of each line of that colour, in order.
std::vector<int> line_sizes(const std::string& svg, const std::string& color);
std::vector<std::pair<double, double>> points_of(const std::string& svg, const std::string& color, size_t line);

struct Rectangle {
  double x, y;
  std::string color;
};
std::vector<Rectangle> rectangles_of(const std::string& svg);

}  // namespace puna::plot
