#include "synth/scene.h"

#include <cairo.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numbers>

#include "base/error.h"

namespace puna::synth {
namespace {

struct Colour {
  double red, green, blue;
};
constexpr std::array<Colour, 8> kPaint = {{{0.86, 0.10, 0.10},
                                           {0.10, 0.60, 0.20},
                                           {0.10, 0.25, 0.90},
                                           {0.96, 0.84, 0.05},
                                           {1.00, 0.52, 0.00},
                                           {0.50, 0.10, 0.65},
                                           {0.05, 0.05, 0.05},
                                           {1.00, 0.50, 0.75}}};

/// Distinct numbers in [0, n).
std::vector<int> distinct(Random& random, int count, int n) {
  std::vector<int> all(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) all[static_cast<size_t>(i)] = i;
  for (int i = 0; i < count; ++i) {
    std::swap(all[static_cast<size_t>(i)], all[static_cast<size_t>(random.between(i, n - 1))]);
  }
  all.resize(static_cast<size_t>(count));
  return all;
}

void choose_canvas(Random& random, Scene& scene) {
  const double chance = random.unit();
  if (chance < 0.6) {
    scene.width = scene.height = static_cast<int>(random.between(60, 96));
  } else if (chance < 0.7) {
    scene.width = static_cast<int>(random.between(60, 96));
    scene.height = static_cast<int>(random.between(60, 96));
  } else {
    const double side = 97 * std::pow(512 / 97.0, random.unit()), aspect = std::pow(2.0, random.unit() - 0.5);
    scene.width = static_cast<int>(side * aspect);
    scene.height = static_cast<int>(side / aspect);
  }
  const double shade = 0.45 + 0.55 * random.unit();
  for (double& channel : scene.background) channel = std::min(1.0, shade + 0.04 * (random.unit() - 0.5));
}

/// Puts a shape near the centre of its cell. Shapes of neighbouring cells stay apart: at most 0.82 of a cell wide, and
/// moved by at most 0.06 of it.
void place(Random& random, const Scene& scene, Shape& shape, double size) {
  const double cell_width = scene.width / 3.0, cell_height = scene.height / 3.0;
  const double cell = std::min(cell_width, cell_height);
  const auto near = [&](int index, double cell_size, double whole) {
    const double moved = (index + 0.5) * cell_size + 0.12 * cell * (random.unit() - 0.5);
    return std::clamp(moved, size / 2 + 1, whole - size / 2 - 1);
  };
  shape.size = size;
  shape.x = near(shape.column, cell_width, scene.width);
  shape.y = near(shape.row, cell_height, scene.height);
}

/// Wide enough to be told (14 pixels), narrow enough not to touch the next one.
double size_of(Random& random, const Scene& scene, double low, double high) {
  const double cell = std::min(scene.width, scene.height) / 3.0;
  return cell * (low + (high - low) * random.unit());
}

void add_single(Random& random, Scene& scene) {
  Shape shape;
  shape.shape = static_cast<int>(random.below(kShapes.size()));
  shape.colour = static_cast<int>(random.below(kColours.size()));
  shape.row = static_cast<int>(random.below(3));
  shape.column = static_cast<int>(random.below(3));
  place(random, scene, shape, size_of(random, scene, 0.70, 1.15));
  scene.shapes.push_back(shape);
}

void add_line(Random& random, Scene& scene, int count) {
  const std::vector<int> shapes = distinct(random, count, kShapes.size());
  const std::vector<int> colours = distinct(random, count, kColours.size());
  std::vector<int> slots = distinct(random, count, 3);
  std::sort(slots.begin(), slots.end());
  const int across = static_cast<int>(random.below(3));
  const bool row = scene.kind == Scene::Kind::kRow;
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    Shape shape;
    shape.shape = shapes[i];
    shape.colour = colours[i];
    shape.row = row ? across : slots[i];
    shape.column = row ? slots[i] : across;
    place(random, scene, shape, size_of(random, scene, 0.70, 0.82));
    scene.shapes.push_back(shape);
  }
}

void add_same(Random& random, Scene& scene) {
  Shape shape;
  shape.shape = static_cast<int>(random.below(kShapes.size()));
  shape.colour = static_cast<int>(random.below(kColours.size()));
  std::vector<int> cells = distinct(random, static_cast<int>(random.between(2, 5)), 9);
  std::sort(cells.begin(), cells.end());
  for (const int cell : cells) {
    shape.row = cell / 3;
    shape.column = cell % 3;
    place(random, scene, shape, size_of(random, scene, 0.70, 0.82));
    scene.shapes.push_back(shape);
  }
}

void outline(cairo_t* cairo, const Shape& shape) {
  const double r = shape.size / 2, x = shape.x, y = shape.y;
  const auto corners = [&](int count, double outer, double inner) {
    for (int i = 0; i < count; ++i) {
      const double angle = 2 * std::numbers::pi * i / count - std::numbers::pi / 2, radius = i % 2 == 0 ? outer : inner;
      cairo_line_to(cairo, x + radius * std::cos(angle), y + radius * std::sin(angle));
    }
    cairo_close_path(cairo);
  };
  const std::string_view name = kShapes[static_cast<size_t>(shape.shape)];
  if (name == "circle") {
    cairo_arc(cairo, x, y, r, 0, 2 * std::numbers::pi);
  } else if (name == "square") {
    cairo_rectangle(cairo, x - 0.92 * r, y - 0.92 * r, 1.84 * r, 1.84 * r);
  } else if (name == "triangle") {
    cairo_move_to(cairo, x, y - r);
    cairo_line_to(cairo, x + r, y + 0.85 * r);
    cairo_line_to(cairo, x - r, y + 0.85 * r);
    cairo_close_path(cairo);
  } else if (name == "star") {
    corners(10, r, 0.42 * r);
  } else {
    cairo_rectangle(cairo, x - r, y - r / 3, 2 * r, 2 * r / 3);
    cairo_rectangle(cairo, x - r / 3, y - r, 2 * r / 3, 2 * r);
  }
}

cairo_status_t append(void* closure, const unsigned char* data, unsigned int length) {
  static_cast<std::string*>(closure)->append(reinterpret_cast<const char*>(data), length);
  return CAIRO_STATUS_SUCCESS;
}

}  // namespace

std::string Scene::content() const {
  std::vector<std::string> parts;
  const bool alone = kind == Kind::kSingle || kind == Kind::kSame;
  for (const Shape& shape : shapes) {
    parts.push_back(name_of(shape) + (alone ? fmt::format(" {} {}", shape.row, shape.column) : ""));
  }
  std::sort(parts.begin(), parts.end());
  return fmt::format("scene {}", fmt::join(parts, ", "));
}

Scene single_shape(Random& random) {
  Scene scene;
  choose_canvas(random, scene);
  add_single(random, scene);
  return scene;
}

Scene random_scene(Random& random) {
  Scene scene;
  choose_canvas(random, scene);
  const double sort = random.unit();
  if (sort < 0.2) {
    scene.kind = Scene::Kind::kSingle;
    add_single(random, scene);
  } else if (sort < 0.75) {
    scene.kind = random.chance(0.5) ? Scene::Kind::kRow : Scene::Kind::kColumn;
    add_line(random, scene, random.chance(0.65) ? 2 : 3);
  } else {
    scene.kind = Scene::Kind::kSame;
    add_same(random, scene);
  }
  return scene;
}

std::string plural_of(std::string_view shape) { return std::string(shape) + (shape.ends_with("ss") ? "es" : "s"); }

std::string name_of(const Shape& shape, bool plural) {
  const std::string_view name = kShapes[static_cast<size_t>(shape.shape)];
  return fmt::format("{} {}", kColours[static_cast<size_t>(shape.colour)],
                     plural ? plural_of(name) : std::string(name));
}

std::string_view place_of(const Shape& shape) {
  static constexpr std::array<std::string_view, 9> kPlaces = {
      "top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right"};
  return kPlaces[static_cast<size_t>(3 * shape.row + shape.column)];
}

std::string draw_png(const Scene& scene) {
  const std::unique_ptr<cairo_surface_t, decltype(&cairo_surface_destroy)> surface(
      cairo_image_surface_create(CAIRO_FORMAT_RGB24, scene.width, scene.height), &cairo_surface_destroy);
  const std::unique_ptr<cairo_t, decltype(&cairo_destroy)> cairo(cairo_create(surface.get()), &cairo_destroy);
  cairo_set_source_rgb(cairo.get(), scene.background[0], scene.background[1], scene.background[2]);
  cairo_paint(cairo.get());
  for (const Shape& shape : scene.shapes) {
    const Colour& paint = kPaint[static_cast<size_t>(shape.colour)];
    cairo_set_source_rgb(cairo.get(), paint.red, paint.green, paint.blue);
    outline(cairo.get(), shape);
    cairo_fill(cairo.get());
  }
  std::string png;
  const cairo_status_t status = cairo_surface_write_to_png_stream(surface.get(), append, &png);
  PUNA_CHECK(status == CAIRO_STATUS_SUCCESS, "cairo: {}", cairo_status_to_string(status));
  return png;
}

}  // namespace puna::synth
