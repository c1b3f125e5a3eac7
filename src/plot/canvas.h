// What both kinds of pictures can draw. Private to src/plot. Coordinates are pixels from the upper left corner.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/image.h"

namespace puna::plot {

struct Point {
  double x = 0, y = 0;
};

struct Box {
  double x = 0, y = 0, width = 0, height = 0;
  double right() const { return x + width; }
  double bottom() const { return y + height; }
};

struct Color {
  uint8_t r = 0, g = 0, b = 0;
  bool operator==(const Color&) const = default;
};

struct Stroke {
  Color color;
  double width = 1, opacity = 1;
  bool dashed = false;
};

enum class Anchor { kStart, kMiddle, kEnd };

struct TextStyle {
  double size = 12;
  Color color{0x33, 0x33, 0x33};
  Anchor anchor = Anchor::kStart;
  bool bold = false;
  bool upward = false;  // read from below to above
};

class Canvas {
 public:
  virtual ~Canvas() = default;
  virtual void line(std::span<const Point> points, const Stroke& stroke) = 0;
  virtual void polygon(std::span<const Point> points, Color color, double opacity) = 0;
  /// Without soft edges, so that neighbours leave no seam.
  virtual void rectangle(const Box& box, Color color) = 0;
  virtual void dot(Point center, double radius, Color color) = 0;
  /// `at` is on the text's base line. Anything may be in `text`; what is not UTF-8 or not printable shows as '?'.
  virtual void text(Point at, std::string_view text, const TextStyle& style) = 0;
  /// What follows shows inside `box` alone, until unclip().
  virtual void clip(const Box& box) = 0;
  virtual void unclip() = 0;
};

/// The text in one line of UTF-8, with '?' for control characters and those that Unicode says are none (XML and cairo
/// refuse them).
std::string drawable_text(std::string_view text);

/// About as wide as sans-serif text is, for laying out; the same on every machine, whatever its fonts.
double text_width(std::string_view text, double size);

/// The text, cut with "..." to about `width` pixels.
std::string fitted(std::string_view text, double size, double width);

class SvgCanvas : public Canvas {
 public:
  SvgCanvas(int width, int height);
  void line(std::span<const Point> points, const Stroke& stroke) override;
  void polygon(std::span<const Point> points, Color color, double opacity) override;
  void rectangle(const Box& box, Color color) override;
  void dot(Point center, double radius, Color color) override;
  void text(Point at, std::string_view text, const TextStyle& style) override;
  void clip(const Box& box) override;
  void unclip() override;
  /// The whole document.
  std::string finish();

 private:
  void append_points(std::span<const Point> points);
  std::string out_;
  int num_clips_ = 0;
};

class ImageCanvas : public Canvas {
 public:
  ImageCanvas(int width, int height, double scale);
  ~ImageCanvas() override;
  void line(std::span<const Point> points, const Stroke& stroke) override;
  void polygon(std::span<const Point> points, Color color, double opacity) override;
  void rectangle(const Box& box, Color color) override;
  void dot(Point center, double radius, Color color) override;
  void text(Point at, std::string_view text, const TextStyle& style) override;
  void clip(const Box& box) override;
  void unclip() override;
  io::Image finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace puna::plot
