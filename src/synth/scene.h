// Scenes of simple shapes: what is where, without any drawing; and how they are drawn.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "synth/random.h"

namespace puna::synth {

inline constexpr std::array<std::string_view, 5> kShapes = {"circle", "square", "triangle", "star", "cross"};
inline constexpr std::array<std::string_view, 8> kColours = {"red",    "green",  "blue",  "yellow",
                                                             "orange", "purple", "black", "pink"};

struct Shape {
  int shape = 0, colour = 0;      // indices into kShapes, kColours
  double x = 0, y = 0, size = 0;  // centre and width of the surrounding square, pixels
  int row = 0, column = 0;        // of the picture's 3 x 3 cells
};

/// kSingle: one shape in a cell. kRow, kColumn: two or three, all shapes and all colours different, left to right or
/// top to bottom. kSame: two to five equal ones in any cells.
struct Scene {
  enum class Kind { kSingle, kRow, kColumn, kSame };
  Kind kind = Kind::kSingle;
  int width = 64, height = 64;  // pixels; 60 to 96 mostly, up to 724
  std::array<double, 3> background = {1, 1, 1};
  std::vector<Shape> shapes;  // left to right, then top to bottom

  /// Which shapes, and for one or several equal ones their cells: what the held-out split is decided by.
  std::string content() const;
};

Scene random_scene(Random& random);
/// One of kind kSingle.
Scene single_shape(Random& random);

/// "red circle", "red circles".
std::string name_of(const Shape& shape, bool plural = false);
std::string plural_of(std::string_view shape);
/// "top left", "centre", "right" of the picture.
std::string_view place_of(const Shape& shape);

/// A PNG file of scene.width x scene.height pixels.
std::string draw_png(const Scene& scene);

}  // namespace puna::synth
