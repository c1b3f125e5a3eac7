// JPEG through libjpeg-turbo with the settings of Pillow, so that pixels are equal bit for bit.
#include <csetjmp>
#include <cstdio>
#include <cstring>
//
#include <jpeglib.h>
//
#include <jerror.h>

#include "base/error.h"
#include "io/image_codecs.h"

namespace puna::io::internal {
namespace {

constexpr int kMaxScans = 100;  // encoders write about ten; each scan passes over the whole image

/// libjpeg leaves by longjmp: functions that call setjmp hold no object with a destructor, all state lives here.
struct JpegReader {
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  jmp_buf jump;
  char message[JMSG_LENGTH_MAX] = "";
  bool ran_out = false;  // the bytes ended before the end marker
  Image image;
  std::vector<uint8_t> cmyk_row;

  JpegReader() = default;
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;
  ~JpegReader() { jpeg_destroy_decompress(&info); }
};

JpegReader& reader_of(j_common_ptr info) { return *static_cast<JpegReader*>(info->client_data); }

[[noreturn]] void on_error(j_common_ptr info) {
  JpegReader& reader = reader_of(info);
  info->err->format_message(info, reader.message);
  longjmp(reader.jump, 1);
}

/// Damage to pixels is an error; oddities that leave pixels whole (stray bytes, unknown versions) are not.
void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  switch (info->err->msg_code) {
    case JWRN_JPEG_EOF:
      reader_of(info).ran_out = true;
      break;
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC:
      on_error(info);
    default:
      break;
  }
}

void on_progress(j_common_ptr info) {
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= kMaxScans) return;
  JpegReader& reader = reader_of(info);
  std::snprintf(reader.message, sizeof(reader.message), "more than %d scans", kMaxScans);
  longjmp(reader.jump, 1);
}

bool read_header(JpegReader& reader, std::span<const uint8_t> bytes) {
  jpeg_decompress_struct& info = reader.info;
  info.err = jpeg_std_error(&reader.errors);
  reader.errors.error_exit = on_error;
  reader.errors.emit_message = on_message;
  info.client_data = &reader;
  if (setjmp(reader.jump)) return false;
  jpeg_create_decompress(&info);
  reader.progress.progress_monitor = on_progress;
  info.progress = &reader.progress;
  jpeg_mem_src(&info, bytes.data(), bytes.size());
  jpeg_save_markers(&info, JPEG_APP0 + 1, 0xffff);
  jpeg_read_header(&info, TRUE);
  return true;
}

/// Adobe writes inverted inks, and so does everyone else; arithmetic of Pillow's CMYK to RGB.
void cmyk_to_rgb(const uint8_t* cmyk, int64_t count, uint8_t* rgb) {
  for (int64_t i = 0; i < count; ++i, cmyk += 4, rgb += 3) {
    const int white = cmyk[3];
    for (int c = 0; c < 3; ++c) {
      const int product = (255 - cmyk[c]) * white + 128;
      rgb[c] = static_cast<uint8_t>(white - (((product >> 8) + product) >> 8));
    }
  }
}

bool read_pixels(JpegReader& reader) {
  jpeg_decompress_struct& info = reader.info;
  if (setjmp(reader.jump)) return false;
  jpeg_start_decompress(&info);
  const size_t stride = static_cast<size_t>(info.output_width) * 3;
  while (info.output_scanline < info.output_height) {
    uint8_t* pixels = reader.image.rgb.data() + info.output_scanline * stride;
    JSAMPROW row = reader.cmyk_row.empty() ? pixels : reader.cmyk_row.data();
    jpeg_read_scanlines(&info, &row, 1);
    if (!reader.cmyk_row.empty()) cmyk_to_rgb(row, info.output_width, pixels);
  }
  jpeg_finish_decompress(&info);
  return true;
}

/// Every block costs at least one bit when Huffman coded; a file with fewer is cut, and its size not to be believed.
void check_enough_bytes(const jpeg_decompress_struct& info, const EncodedImage& in) {
  if (info.arith_code) return;
  int64_t blocks = 0;
  for (int i = 0; i < info.num_components; ++i) {
    const jpeg_component_info& part = info.comp_info[i];
    blocks += (int64_t{info.image_width} * part.h_samp_factor / info.max_h_samp_factor / DCTSIZE) *
              (int64_t{info.image_height} * part.v_samp_factor / info.max_v_samp_factor / DCTSIZE);
  }
  if (blocks > static_cast<int64_t>(in.bytes.size()) * 8)
    fail(in.where, "JPEG is truncated: {} bytes cannot hold {} x {} pixels", in.bytes.size(), info.image_width,
         info.image_height);
}

int jpeg_orientation(const jpeg_decompress_struct& info) {
  for (auto* marker = info.marker_list; marker; marker = marker->next)
    if (marker->data_length >= 6 && std::memcmp(marker->data, "Exif\0", 6) == 0)
      return exif_orientation({marker->data, marker->data_length});
  return 1;
}

}  // namespace

DecodedImage decode_jpeg(const EncodedImage& in) {
  JpegReader reader;
  const auto check = [&](bool ok) {
    if (reader.ran_out && !ok) fail(in.where, "JPEG is truncated ({}); is the file complete?", reader.message);
    if (!ok) fail(in.where, "JPEG is damaged or not supported: {}", reader.message);
  };
  check(read_header(reader, in.bytes));
  jpeg_decompress_struct& info = reader.info;
  check_image_size(in, info.image_width, info.image_height);
  if (info.num_components != 1 && info.num_components != 3 && info.num_components != 4)
    fail(in.where, "JPEG has {} colour components; 1, 3 and 4 are supported", info.num_components);
  check_enough_bytes(info, in);
  info.out_color_space = info.num_components == 4 ? JCS_CMYK : JCS_RGB;
  const bool several_scans = jpeg_has_multiple_scans(&info);
  reader.image = make_image(info.image_width, info.image_height);
  if (info.num_components == 4) reader.cmyk_row.resize(size_t{info.image_width} * 4);
  const int orientation = jpeg_orientation(info);  // libjpeg drops the markers when it has finished
  check(read_pixels(reader));
  // A sequential file has its pixels once the rows are read, end marker or not; of several scans one may be missing.
  if (several_scans && reader.ran_out) fail(in.where, "JPEG is truncated: its end marker is missing");
  return {std::move(reader.image), orientation};
}

}  // namespace puna::io::internal
