// Decoding JPEG, PNG and WebP into RGB bytes, with limits that are checked before anything is decoded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace puna::io {

struct ImageLimits {
  int64_t max_bytes = 64 << 20;      // encoded size
  int64_t max_pixels = 100'000'000;  // width * height
  int64_t max_side = 65'535;
};

/// 8-bit RGB, row-major, three interleaved bytes a pixel.
struct Image {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> rgb;  // [height, width, 3]
};

/// Decodes by content, not by file name: JPEG (baseline, progressive, grey, CMYK/YCCK), PNG (all colour types and
/// depths, interlaced; of 16 bits a sample the upper 8 are kept, grey ones too), WebP (lossy, lossless, alpha). Alpha
/// is composited over white as the Hugging Face processor does; EXIF orientation is applied when `apply_exif`. Throws
/// Error(`where`) on anything malformed or over the limits.
Image decode_image(std::span<const std::byte> bytes, std::string_view where, const ImageLimits& limits = {},
                   bool apply_exif = true);

/// Encodes 8-bit RGB as PNG (tests, tools).
std::vector<std::byte> encode_png(const Image& image);

}  // namespace puna::io
