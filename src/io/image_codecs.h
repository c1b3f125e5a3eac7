// Private to src/io/image*.cc: one decoder per format, and what they share.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "io/image.h"

namespace puna::io::internal {

struct EncodedImage {
  std::span<const uint8_t> bytes;
  std::string_view where;  // for errors
  const ImageLimits& limits;
};

struct DecodedImage {
  Image image;
  int orientation = 1;  // EXIF 1..8, not yet applied
};

DecodedImage decode_jpeg(const EncodedImage& in);
DecodedImage decode_png(const EncodedImage& in);
DecodedImage decode_webp(const EncodedImage& in);

/// Throws Error when the header's size is empty or over the limits; called before pixels are allocated.
void check_image_size(const EncodedImage& in, int64_t width, int64_t height);

/// An image of this size with zeroed pixels.
Image make_image(int64_t width, int64_t height);

/// Orientation in a TIFF block (what follows "Exif\0\0", or the whole with it); 1 when absent or unreadable.
int exif_orientation(std::span<const uint8_t> exif);

/// `count` pixels of RGBA over opaque white, with the rounding of Pillow's alpha_composite.
void composite_over_white(const uint8_t* rgba, int64_t count, uint8_t* rgb);

}  // namespace puna::io::internal
