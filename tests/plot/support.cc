#include "tests/plot/support.h"

#include <gtest/gtest.h>

#include <cctype>
#include <regex>
#include <sstream>
#include <string_view>

namespace puna::plot {
namespace {

std::vector<std::string> lines_of(const std::string& svg, const std::string& color) {
  std::vector<std::string> found;
  const std::string begin = "<polyline fill=\"none\" stroke=\"" + color + "\"", points = "points=\"";
  for (size_t at = svg.find(begin); at != svg.npos; at = svg.find(begin, at + 1)) {
    const size_t from = svg.find(points, at) + points.size();
    found.push_back(svg.substr(from, svg.find('"', from) - from));
  }
  return found;
}

bool is_name(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '-'; }

/// The name of a tag whose attributes are all name="value"; empty when they are not.
std::string tag_name(std::string_view tag) {
  if (tag.starts_with("/")) tag.remove_prefix(1);
  if (tag.ends_with("/")) tag.remove_suffix(1);
  size_t at = 0;
  while (at < tag.size() && is_name(tag[at])) ++at;
  const std::string name(tag.substr(0, at));
  while (at < tag.size()) {
    if (tag[at++] != ' ') return "";
    while (at < tag.size() && is_name(tag[at])) ++at;
    if (tag.substr(at, 2) != "=\"") return "";
    at = tag.find('"', at + 2);
    if (at == tag.npos) return "";
    ++at;
  }
  return name;
}

}  // namespace

std::string xml_error(const std::string& xml) {
  std::vector<std::string> open;
  size_t at = 0;
  while (true) {
    const size_t begin = xml.find('<', at);
    const std::string text = xml.substr(at, begin - at);
    for (size_t i = text.find('&'); i != text.npos; i = text.find('&', i + 1))
      if (text.compare(i, 4, "&lt;") != 0 && text.compare(i, 4, "&gt;") != 0 && text.compare(i, 5, "&amp;") != 0)
        return "an unescaped & in: " + text;
    for (const char c : text)
      if ((static_cast<unsigned char>(c) < 0x20 && c != '\n') || c == '>') return "a forbidden character in: " + text;
    if (begin == xml.npos) break;
    const size_t end = xml.find('>', begin);
    if (end == xml.npos) return "an unfinished tag";
    const std::string tag = xml.substr(begin + 1, end - begin - 1), name = tag_name(tag);
    if (name.empty()) return "a malformed tag: " + tag;
    at = end + 1;
    if (tag.starts_with("/")) {
      if (open.empty() || open.back() != name) return "closes what is not open: " + tag;
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(name);
    }
  }
  return open.empty() ? "" : "never closed: " + open.back();
}

int count_of(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++count;
  return count;
}

std::vector<int> line_sizes(const std::string& svg, const std::string& color) {
  std::vector<int> sizes;
  for (const std::string& line : lines_of(svg, color)) sizes.push_back(count_of(line, ","));
  return sizes;
}

std::vector<std::pair<double, double>> points_of(const std::string& svg, const std::string& color, size_t line) {
  std::vector<std::pair<double, double>> points;
  std::istringstream in(lines_of(svg, color).at(line));
  double x, y;
  char comma;
  while (in >> x >> comma >> y) points.emplace_back(x, y);
  return points;
}

std::vector<Rectangle> rectangles_of(const std::string& svg) {
  std::vector<Rectangle> found;
  const std::regex rectangle("<rect x=\"([0-9.]+)\" y=\"([0-9.]+)\"[^>]*fill=\"([^\"]*)\"");
  for (std::sregex_iterator match(svg.begin(), svg.end(), rectangle), end; match != end; ++match)
    found.push_back({std::stod((*match)[1]), std::stod((*match)[2]), (*match)[3]});
  return found;
}

}  // namespace puna::plot
