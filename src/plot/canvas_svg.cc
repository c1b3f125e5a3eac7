#include <fmt/format.h>

#include <cmath>

#include "plot/canvas.h"

namespace puna::plot {
namespace {

std::string hex(Color color) { return fmt::format("#{:02x}{:02x}{:02x}", color.r, color.g, color.b); }

/// At most two decimals, none where they are zeros: a hundredth of a pixel is not seen.
std::string number(double value) {
  std::string text = fmt::format("{:.2f}", value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? std::string("0") : text;
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : drawable_text(text)) {
    if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '&')
      out += "&amp;";
    else
      out += c;
  }
  return out;
}

}  // namespace

SvgCanvas::SvgCanvas(int width, int height) {
  out_ = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
      "font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n",
      width, height);
}

void SvgCanvas::append_points(std::span<const Point> points) {
  out_ += " points=\"";
  for (size_t i = 0; i < points.size(); ++i)
    out_ += fmt::format("{}{},{}", i == 0 ? "" : " ", number(points[i].x), number(points[i].y));
  out_ += '"';
}

void SvgCanvas::line(std::span<const Point> points, const Stroke& stroke) {
  out_ += fmt::format("<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"",
                      hex(stroke.color), number(stroke.width));
  if (stroke.opacity < 1) out_ += fmt::format(" stroke-opacity=\"{}\"", number(stroke.opacity));
  if (stroke.dashed) out_ += " stroke-dasharray=\"5 3\"";
  append_points(points);
  out_ += "/>\n";
}

void SvgCanvas::polygon(std::span<const Point> points, Color color, double opacity) {
  out_ += fmt::format("<polygon fill=\"{}\" fill-opacity=\"{}\"", hex(color), number(opacity));
  append_points(points);
  out_ += "/>\n";
}

void SvgCanvas::rectangle(const Box& box, Color color) {
  out_ +=
      fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\" shape-rendering=\"crispEdges\"/>\n",
                  number(box.x), number(box.y), number(box.width), number(box.height), hex(color));
}

void SvgCanvas::dot(Point center, double radius, Color color) {
  out_ += fmt::format("<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"{}\"/>\n", number(center.x), number(center.y),
                      number(radius), hex(color));
}

void SvgCanvas::text(Point at, std::string_view text, const TextStyle& style) {
  out_ += fmt::format("<text x=\"{}\" y=\"{}\" font-size=\"{}\" fill=\"{}\"", number(at.x), number(at.y),
                      number(style.size), hex(style.color));
  if (style.anchor != Anchor::kStart)
    out_ += fmt::format(" text-anchor=\"{}\"", style.anchor == Anchor::kMiddle ? "middle" : "end");
  if (style.bold) out_ += " font-weight=\"bold\"";
  if (style.upward) out_ += fmt::format(" transform=\"rotate(-90 {} {})\"", number(at.x), number(at.y));
  out_ += fmt::format(">{}</text>\n", escaped(text));
}

void SvgCanvas::clip(const Box& box) {
  out_ += fmt::format(
      "<clipPath id=\"clip{0}\"><rect x=\"{1}\" y=\"{2}\" width=\"{3}\" height=\"{4}\"/></clipPath>\n"
      "<g clip-path=\"url(#clip{0})\">\n",
      num_clips_, number(box.x), number(box.y), number(box.width), number(box.height));
  ++num_clips_;
}

void SvgCanvas::unclip() { out_ += "</g>\n"; }

std::string SvgCanvas::finish() {
  out_ += "</svg>\n";
  return std::move(out_);
}

}  // namespace puna::plot
