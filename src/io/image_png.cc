// PNG through libpng: every colour type and depth to 8-bit RGB.
#include <png.h>

#include <csetjmp>
#include <cstring>

#include "base/error.h"
#include "io/image_codecs.h"

namespace puna::io::internal {
namespace {

constexpr int64_t kMaxDeflateRatio = 1032;  // zlib's best possible compression

/// libpng leaves by longjmp: functions that call setjmp hold no object with a destructor, all state lives here.
struct PngReader {
  png_structp png = nullptr;
  png_infop info = nullptr;
  jmp_buf jump;
  char message[160] = "";
  std::span<const uint8_t> rest;
  Image image;
  std::vector<uint8_t> rgba;  // one row, or all rows of an interlaced image
  bool alpha = false;
  int passes = 1;

  PngReader() = default;
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;
  ~PngReader() {
    if (png) png_destroy_read_struct(&png, &info, nullptr);
  }
};

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
  auto& reader = *static_cast<PngReader*>(png_get_error_ptr(png));
  std::strncpy(reader.message, message, sizeof(reader.message) - 1);
  longjmp(reader.jump, 1);
}

void on_warning(png_structp, png_const_charp) {}

void on_read(png_structp png, png_bytep to, size_t count) {
  auto& reader = *static_cast<PngReader*>(png_get_io_ptr(png));
  if (count > reader.rest.size()) png_error(png, "the file ends too early; is it complete?");
  std::memcpy(to, reader.rest.data(), count);
  reader.rest = reader.rest.subspan(count);
}

/// Text, profiles and the like are skipped unread: they could unpack to gigabytes and change no pixel.
void ignore_ancillary(png_structp png) {
  static constexpr png_byte kIgnored[] = "iCCP\0zTXt\0iTXt\0tEXt\0sPLT\0pCAL\0hIST";
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, kIgnored, sizeof(kIgnored) / 5);
  png_set_chunk_malloc_max(png, 1 << 20);
  png_set_chunk_cache_max(png, 16);
}

bool read_header(PngReader& reader, const ImageLimits& limits) {
  if (setjmp(reader.jump)) return false;
  reader.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader, on_error, on_warning);
  if (!reader.png || !(reader.info = png_create_info_struct(reader.png))) return false;
  png_set_read_fn(reader.png, &reader, on_read);
  ignore_ancillary(reader.png);
  const auto side = static_cast<png_uint_32>(limits.max_side < 0x7fffffff ? limits.max_side : 0x7fffffff);
  png_set_user_limits(reader.png, side, side);
  png_read_info(reader.png, reader.info);
  return true;
}

/// Leaves 8-bit RGB or RGBA; 16 bits lose their low byte.
bool set_transforms(PngReader& reader) {
  if (setjmp(reader.jump)) return false;
  png_set_expand(reader.png);
  png_set_strip_16(reader.png);
  png_set_gray_to_rgb(reader.png);
  reader.passes = png_set_interlace_handling(reader.png);
  png_read_update_info(reader.png, reader.info);
  reader.alpha = png_get_channels(reader.png, reader.info) == 4;
  return true;
}

bool read_pixels(PngReader& reader) {
  if (setjmp(reader.jump)) return false;
  const size_t width = static_cast<size_t>(reader.image.width);
  for (int pass = 0; pass < reader.passes; ++pass) {
    for (int y = 0; y < reader.image.height; ++y) {
      uint8_t* rgb = reader.image.rgb.data() + y * width * 3;
      if (!reader.alpha) {
        png_read_row(reader.png, rgb, nullptr);
        continue;
      }
      uint8_t* rgba = reader.rgba.data() + (reader.passes > 1 ? y * width * 4 : 0);
      png_read_row(reader.png, rgba, nullptr);
      if (pass == reader.passes - 1) composite_over_white(rgba, reader.image.width, rgb);
    }
  }
  png_read_end(reader.png, reader.info);
  return true;
}

/// libpng allocates what a chunk's header claims before it reads on; so no claim may exceed the file.
void check_chunks(const EncodedImage& in) {
  constexpr size_t kSignature = 8, kAround = 12;  // length, name and checksum around the data
  for (size_t at = kSignature; in.bytes.size() - at >= kAround;) {
    const uint8_t* chunk = in.bytes.data() + at;
    const size_t size = size_t{chunk[0]} << 24 | size_t{chunk[1]} << 16 | size_t{chunk[2]} << 8 | chunk[3];
    if (size > in.bytes.size() - at - kAround)
      fail(in.where, "PNG is truncated: a chunk at {} has {} bytes, the file only {}; is it complete?", at, size,
           in.bytes.size());
    if (std::memcmp(chunk + 4, "IEND", 4) == 0) return;
    at += kAround + size;
  }
}

int png_orientation(PngReader& reader) {
  png_uint_32 size = 0;
  png_bytep exif = nullptr;
  if (!png_get_eXIf_1(reader.png, reader.info, &size, &exif) || !exif) return 1;
  return exif_orientation({exif, size});
}

}  // namespace

DecodedImage decode_png(const EncodedImage& in) {
  PngReader reader;
  reader.rest = in.bytes;
  const auto check = [&](bool ok) {
    if (!ok) fail(in.where, "PNG is damaged: {}", reader.message);
  };
  check_chunks(in);
  check(read_header(reader, in.limits));
  const int64_t width = png_get_image_width(reader.png, reader.info);
  const int64_t height = png_get_image_height(reader.png, reader.info);
  check_image_size(in, width, height);
  const auto packed = static_cast<int64_t>(png_get_rowbytes(reader.png, reader.info)) * height;
  if (packed / kMaxDeflateRatio > static_cast<int64_t>(in.bytes.size()))
    fail(in.where, "PNG is truncated: {} bytes cannot hold {} x {} pixels", in.bytes.size(), width, height);
  check(set_transforms(reader));
  reader.image = make_image(width, height);
  if (reader.alpha) reader.rgba.resize(static_cast<size_t>(width) * (reader.passes > 1 ? height : 1) * 4);
  check(read_pixels(reader));
  return {std::move(reader.image), png_orientation(reader)};
}

}  // namespace puna::io::internal
