#include "plot/figure.h"

#include <algorithm>

#include "base/error.h"
#include "io/file.h"
#include "io/image.h"
#include "io/text.h"
#include "plot/panels.h"

namespace puna::plot {
namespace {

constexpr size_t kMaxPanels = 256;
constexpr int64_t kMaxSide = 30'000;
constexpr double kCharacterWidth = 0.56, kTitleHeight = 34, kMargin = 8;

struct Size {
  int width = 0, height = 0;
};

Size size_of(const Figure& figure, double scale) {
  if (figure.panels.empty()) fail("plot", "there is nothing to draw");
  if (figure.panels.size() > kMaxPanels)
    fail("plot", "the picture would have {} panels, more than {}; draw fewer at once", figure.panels.size(),
         kMaxPanels);
  PUNA_CHECK(figure.columns > 0 && figure.panel_width > 0 && figure.panel_height > 0, "{} columns of {} x {}",
             figure.columns, figure.panel_width, figure.panel_height);
  for (const Panel& panel : figure.panels) std::visit([](const auto& part) { check(part); }, panel);
  const auto panels = static_cast<int64_t>(figure.panels.size());
  const int64_t columns = std::min<int64_t>(figure.columns, panels), rows = (panels + columns - 1) / columns;
  const double width = static_cast<double>(columns) * figure.panel_width + 2 * kMargin;
  const double height =
      static_cast<double>(rows) * figure.panel_height + 2 * kMargin + (figure.title.empty() ? 0 : kTitleHeight);
  if (std::max(width, height) * scale > static_cast<double>(kMaxSide))
    fail("plot", "the picture would be {:.0f} x {:.0f} pixels, more than {} a side; draw fewer panels at once",
         width * scale, height * scale, kMaxSide);
  return {static_cast<int>(width), static_cast<int>(height)};
}

void draw_all(Canvas& canvas, const Figure& figure, const Size& size) {
  canvas.rectangle({0, 0, static_cast<double>(size.width), static_cast<double>(size.height)}, kWhite);
  double top = kMargin;
  if (!figure.title.empty()) {
    canvas.text({size.width / 2.0, top + 22}, fitted(figure.title, 17, size.width - 20.0),
                {17, kText, Anchor::kMiddle, true});
    top += kTitleHeight;
  }
  const auto columns = static_cast<size_t>(figure.columns);
  for (size_t i = 0; i < figure.panels.size(); ++i) {
    const Box box{kMargin + static_cast<double>(i % columns) * figure.panel_width,
                  top + static_cast<double>(i / columns) * figure.panel_height, static_cast<double>(figure.panel_width),
                  static_cast<double>(figure.panel_height)};
    std::visit([&](const auto& panel) { draw(canvas, panel, box); }, figure.panels[i]);
  }
}

size_t num_characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace

std::string drawable_text(std::string_view text) {
  const std::string line = io::printable(text);
  std::string out;
  for (size_t i = 0, length; i < line.size(); i += length) {
    const auto lead = static_cast<uint8_t>(line[i]);
    length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    uint32_t code = length == 1 ? lead : lead & (0x7Fu >> length);
    for (size_t k = 1; k < length; ++k) code = code << 6 | (static_cast<uint8_t>(line[i + k]) & 0x3Fu);
    const bool is_none = (code & 0xFFFE) == 0xFFFE || (code >= 0xFDD0 && code <= 0xFDEF);
    out += is_none ? std::string("?") : line.substr(i, length);
  }
  return out;
}

double text_width(std::string_view text, double size) {
  return kCharacterWidth * size * static_cast<double>(num_characters(text));
}

std::string fitted(std::string_view text, double size, double width) {
  if (text_width(text, size) <= width) return std::string(text);
  const auto kept = static_cast<size_t>(std::max(0.0, width / (kCharacterWidth * size) - 3));
  size_t end = 0;
  for (size_t seen = 0; end < text.size(); ++end)
    if ((text[end] & 0xC0) != 0x80 && ++seen > kept) break;
  return std::string(text.substr(0, end)) + "...";
}

void draw_axis_labels(Canvas& canvas, const Box& box, const Box& area, const std::string& x_label,
                      const std::string& y_label) {
  canvas.text({area.x + area.width / 2, area.bottom() + 33}, fitted(x_label, kLabelSize, area.width),
              {kLabelSize, kText, Anchor::kMiddle});
  canvas.text({box.x + 16, area.y + area.height / 2}, fitted(y_label, kLabelSize, area.height),
              {kLabelSize, kText, Anchor::kMiddle, false, true});
}

std::string to_svg(const Figure& figure) {
  const Size size = size_of(figure, 1);
  SvgCanvas canvas(size.width, size.height);
  draw_all(canvas, figure, size);
  return canvas.finish();
}

void write_svg(const Figure& figure, const std::filesystem::path& path) { io::write_file(path, to_svg(figure)); }

void write_png(const Figure& figure, const std::filesystem::path& path, double scale) {
  const Size size = size_of(figure, scale);
  ImageCanvas canvas(size.width, size.height, scale);
  draw_all(canvas, figure, size);
  io::AtomicFile file(path);
  file.write(io::encode_png(canvas.finish()));
  file.commit();
}

void write_figure(const Figure& figure, const std::filesystem::path& path) {
  const std::string ending = path.extension().string();
  if (ending == ".svg") return write_svg(figure, path);
  if (ending == ".png") return write_png(figure, path);
  fail(path.string(), "pictures are written as .svg or .png; give a name that ends so");
}

}  // namespace puna::plot
