#include <cairo.h>

#include <numbers>

#include "base/error.h"
#include "plot/canvas.h"

namespace puna::plot {

struct ImageCanvas::Impl {
  Impl(int width, int height, double scale)
      : surface(cairo_image_surface_create(CAIRO_FORMAT_RGB24, static_cast<int>(width * scale),
                                           static_cast<int>(height * scale))),
        context(cairo_create(surface)) {
    cairo_scale(context, scale, scale);
    cairo_set_line_join(context, CAIRO_LINE_JOIN_ROUND);
  }
  ~Impl() {
    cairo_destroy(context);
    cairo_surface_destroy(surface);
  }

  void color(Color color, double opacity = 1) {
    cairo_set_source_rgba(context, color.r / 255.0, color.g / 255.0, color.b / 255.0, opacity);
  }
  void path(std::span<const Point> points) {
    for (const Point& point : points) cairo_line_to(context, point.x, point.y);  // the first one begins the path
  }

  cairo_surface_t* surface;
  cairo_t* context;
};

ImageCanvas::ImageCanvas(int width, int height, double scale) : impl_(std::make_unique<Impl>(width, height, scale)) {}
ImageCanvas::~ImageCanvas() = default;

void ImageCanvas::line(std::span<const Point> points, const Stroke& stroke) {
  constexpr double kDashes[] = {5, 3};
  impl_->color(stroke.color, stroke.opacity);
  cairo_set_line_width(impl_->context, stroke.width);
  cairo_set_dash(impl_->context, kDashes, stroke.dashed ? 2 : 0, 0);
  impl_->path(points);
  cairo_stroke(impl_->context);
}

void ImageCanvas::polygon(std::span<const Point> points, Color color, double opacity) {
  impl_->color(color, opacity);
  impl_->path(points);
  cairo_fill(impl_->context);
}

void ImageCanvas::rectangle(const Box& box, Color color) {
  impl_->color(color);
  cairo_set_antialias(impl_->context, CAIRO_ANTIALIAS_NONE);
  cairo_rectangle(impl_->context, box.x, box.y, box.width, box.height);
  cairo_fill(impl_->context);
  cairo_set_antialias(impl_->context, CAIRO_ANTIALIAS_DEFAULT);
}

void ImageCanvas::dot(Point center, double radius, Color color) {
  impl_->color(color);
  cairo_arc(impl_->context, center.x, center.y, radius, 0, 2 * std::numbers::pi);
  cairo_fill(impl_->context);
}

void ImageCanvas::text(Point at, std::string_view text, const TextStyle& style) {
  const std::string shown = drawable_text(text);
  cairo_t* const context = impl_->context;
  impl_->color(style.color);
  cairo_select_font_face(context, "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                         style.bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_font_size(context, style.size);
  cairo_text_extents_t extents;
  cairo_text_extents(context, shown.c_str(), &extents);
  const double shift = style.anchor == Anchor::kStart ? 0 : style.anchor == Anchor::kMiddle ? 0.5 : 1;
  cairo_save(context);
  cairo_translate(context, at.x, at.y);
  if (style.upward) cairo_rotate(context, -std::numbers::pi / 2);
  cairo_move_to(context, -shift * extents.x_advance, 0);
  cairo_show_text(context, shown.c_str());
  cairo_restore(context);
  cairo_new_path(context);  // showing text leaves a point, to which a line would connect
}

void ImageCanvas::clip(const Box& box) {
  cairo_save(impl_->context);
  cairo_rectangle(impl_->context, box.x, box.y, box.width, box.height);
  cairo_clip(impl_->context);
}

void ImageCanvas::unclip() { cairo_restore(impl_->context); }

io::Image ImageCanvas::finish() {
  cairo_surface_flush(impl_->surface);
  const cairo_status_t status = cairo_status(impl_->context);
  if (status != CAIRO_STATUS_SUCCESS) fail("plot", "the picture cannot be drawn: {}", cairo_status_to_string(status));
  const int width = cairo_image_surface_get_width(impl_->surface),
            height = cairo_image_surface_get_height(impl_->surface);
  io::Image image{width, height, {}};
  image.rgb.reserve(static_cast<size_t>(width) * static_cast<size_t>(height) * 3);
  const unsigned char* const data = cairo_image_surface_get_data(impl_->surface);
  const auto stride = static_cast<size_t>(cairo_image_surface_get_stride(impl_->surface));
  for (int y = 0; y < height; ++y) {
    const auto* row = reinterpret_cast<const uint32_t*>(data + static_cast<size_t>(y) * stride);
    for (int x = 0; x < width; ++x)
      for (const int shift : {16, 8, 0}) image.rgb.push_back(static_cast<uint8_t>(row[x] >> shift));
  }
  return image;
}

}  // namespace puna::plot
