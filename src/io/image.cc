#include "io/image.h"

#include <png.h>

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "base/memory.h"
#include "io/image_codecs.h"

namespace puna::io {
namespace internal {

void check_image_size(const EncodedImage& in, int64_t width, int64_t height) {
  if (width < 1 || height < 1) fail(in.where, "image is empty: {} x {} pixels", width, height);
  if (std::max(width, height) > in.limits.max_side)
    fail(in.where, "image is {} x {} pixels, longer than {} on a side; scale it down", width, height,
         in.limits.max_side);
  const auto pixels = checked_mul(width, height);
  if (!pixels || *pixels > in.limits.max_pixels)
    fail(in.where, "image is {} x {} pixels, more than {} in all; scale it down", width, height, in.limits.max_pixels);
}

Image make_image(int64_t width, int64_t height) {
  Image image{static_cast<int>(width), static_cast<int>(height), {}};
  image.rgb.resize(static_cast<size_t>(width) * static_cast<size_t>(height) * 3);
  return image;
}

int exif_orientation(std::span<const uint8_t> exif) {
  static constexpr uint8_t kPrefix[6] = {'E', 'x', 'i', 'f', 0, 0};
  if (exif.size() >= 6 && std::memcmp(exif.data(), kPrefix, 6) == 0) exif = exif.subspan(6);
  if (exif.size() < 8) return 1;
  const bool little = exif[0] == 'I' && exif[1] == 'I';
  if (!little && !(exif[0] == 'M' && exif[1] == 'M')) return 1;
  const auto u16 = [&](size_t at) -> uint32_t {
    return little ? exif[at] | exif[at + 1] << 8 : exif[at] << 8 | exif[at + 1];
  };
  const auto u32 = [&](size_t at) -> uint32_t {
    return little ? u16(at) | u16(at + 2) << 16 : u16(at) << 16 | u16(at + 2);
  };
  constexpr uint32_t kOrientationTag = 0x0112, kShort = 3;
  if (u16(2) != 42) return 1;
  const size_t directory = u32(4);
  if (directory > exif.size() - 2) return 1;
  const size_t entries = u16(directory);
  for (size_t i = 0; i < entries; ++i) {
    const size_t entry = directory + 2 + 12 * i;
    if (entry + 12 > exif.size()) return 1;
    if (u16(entry) != kOrientationTag) continue;
    const uint32_t value = u16(entry + 8);
    return u16(entry + 2) == kShort && u32(entry + 4) == 1 && value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

void composite_over_white(const uint8_t* rgba, int64_t count, uint8_t* rgb) {
  for (int64_t i = 0; i < count; ++i, rgba += 4, rgb += 3) {
    const uint32_t alpha = rgba[3];
    for (int c = 0; c < 3; ++c) {
      const uint32_t sum = (rgba[c] * alpha + 255 * (255 - alpha) + 128) << 7;
      rgb[c] = static_cast<uint8_t>((((sum >> 8) + sum) >> 8) >> 7);
    }
  }
}

namespace {

enum class Format { kJpeg, kPng, kWebp };

bool starts_with(std::span<const uint8_t> bytes, size_t at, std::string_view magic) {
  return bytes.size() >= at + magic.size() && std::memcmp(bytes.data() + at, magic.data(), magic.size()) == 0;
}

Format sniff(const EncodedImage& in) {
  using namespace std::string_view_literals;
  if (in.bytes.empty()) fail(in.where, "image is empty: 0 bytes");
  if (starts_with(in.bytes, 0, "\xff\xd8\xff")) return Format::kJpeg;
  if (starts_with(in.bytes, 0, "\x89PNG\r\n\x1a\n")) return Format::kPng;
  if (starts_with(in.bytes, 0, "RIFF") && starts_with(in.bytes, 8, "WEBP")) return Format::kWebp;
  static constexpr struct {
    size_t at;
    std::string_view magic, name;
  } kOthers[] = {{0, "GIF8", "a GIF"},         {0, "BM", "a BMP"},          {0, "II*\0"sv, "a TIFF"},
                 {0, "MM\0*"sv, "a TIFF"},     {4, "ftypavif", "an AVIF"},  {4, "ftyphei", "a HEIC"},
                 {4, "ftypmif1", "a HEIF"},    {0, "\0\0\1\0"sv, "an ICO"}, {0, "\xff\x0a", "a JPEG XL"},
                 {4, "JXL \r\n", "a JPEG XL"}, {0, "%PDF", "a PDF"},        {0, "<svg", "an SVG"},
                 {0, "<?xml", "an XML"}};
  for (const auto& other : kOthers)
    if (starts_with(in.bytes, other.at, other.magic))
      fail(in.where, "is {} file, which is not supported; convert it to JPEG, PNG or WebP", other.name);
  fail(in.where, "is not a JPEG, PNG or WebP image ({} bytes)", in.bytes.size());
}

/// Turns and mirrors as EXIF orientation 2..8 asks.
Image oriented(Image source, int orientation) {
  if (orientation == 1) return source;
  const int64_t w = source.width, h = source.height;
  // Step in the source, in pixels, for one step right and one step down in the result.
  struct Walk {
    int64_t start, right, down;
  };
  const Walk walks[] = {{w - 1, -1, w},       {w * h - 1, -1, -w}, {(h - 1) * w, 1, -w}, {0, w, 1},
                        {(h - 1) * w, -w, 1}, {w * h - 1, -w, -1}, {w - 1, w, -1}};
  const Walk walk = walks[orientation - 2];
  const bool swapped = orientation >= 5;
  Image result = make_image(swapped ? h : w, swapped ? w : h);
  uint8_t* to = result.rgb.data();
  for (int64_t y = 0; y < result.height; ++y) {
    const uint8_t* from = source.rgb.data() + 3 * (walk.start + y * walk.down);
    for (int64_t x = 0; x < result.width; ++x, to += 3, from += 3 * walk.right) std::memcpy(to, from, 3);
  }
  return result;
}

DecodedImage decode_by_content(const EncodedImage& in) {
  switch (sniff(in)) {
    case Format::kJpeg:
      return decode_jpeg(in);
    case Format::kPng:
      return decode_png(in);
    case Format::kWebp:
      return decode_webp(in);
  }
  PUNA_CHECK(false, "unknown image format");
}

}  // namespace
}  // namespace internal

Image decode_image(std::span<const std::byte> bytes, std::string_view where, const ImageLimits& limits,
                   bool apply_exif) {
  if (static_cast<int64_t>(bytes.size()) > limits.max_bytes)
    fail(where, "image file has {}, more than {}; scale it down or compress it",
         format_bytes(static_cast<int64_t>(bytes.size())), format_bytes(limits.max_bytes));
  const internal::EncodedImage in{{reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, where, limits};
  internal::DecodedImage decoded = internal::decode_by_content(in);
  return apply_exif ? internal::oriented(std::move(decoded.image), decoded.orientation) : std::move(decoded.image);
}

std::vector<std::byte> encode_png(const Image& image) {
  const auto size = checked_numel(std::array<int64_t, 3>{image.height, image.width, 3});
  PUNA_CHECK(size && *size > 0 && static_cast<size_t>(*size) == image.rgb.size(), "{} x {} image with {} bytes",
             image.width, image.height, image.rgb.size());
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = PNG_FORMAT_RGB;
  png_alloc_size_t bytes = 0;
  std::vector<std::byte> encoded;
  if (png_image_write_to_memory(&png, nullptr, &bytes, 0, image.rgb.data(), 0, nullptr)) {
    encoded.resize(bytes);
    if (png_image_write_to_memory(&png, encoded.data(), &bytes, 0, image.rgb.data(), 0, nullptr)) return encoded;
  }
  fail("png", "cannot encode {} x {} pixels: {}", image.width, image.height, png.message);
}

}  // namespace puna::io
