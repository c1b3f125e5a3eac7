// WebP through libwebp; of an animation, the first frame.
#include <webp/decode.h>
#include <webp/demux.h>

#include <memory>

#include "base/error.h"
#include "io/image_codecs.h"

namespace puna::io::internal {
namespace {

struct Demuxer {
  explicit Demuxer(std::span<const uint8_t> bytes) {
    const WebPData data{bytes.data(), bytes.size()};
    demux = WebPDemux(&data);
  }
  Demuxer(const Demuxer&) = delete;
  Demuxer& operator=(const Demuxer&) = delete;
  ~Demuxer() { WebPDemuxDelete(demux); }
  WebPDemuxer* demux;
};

struct Frame {
  explicit Frame(const Demuxer& file) { found = WebPDemuxGetFrame(file.demux, 1, &it); }
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;
  ~Frame() { WebPDemuxReleaseIterator(&it); }
  WebPIterator it{};
  bool found;
};

int webp_orientation(const Demuxer& file) {
  WebPChunkIterator it{};
  int orientation = 1;
  if (WebPDemuxGetChunk(file.demux, "EXIF", 1, &it)) orientation = exif_orientation({it.chunk.bytes, it.chunk.size});
  WebPDemuxReleaseChunkIterator(&it);
  return orientation;
}

/// The frame may cover a part of the canvas; the rest is transparent (white), or black in files without alpha.
void decode_frame(const EncodedImage& in, const WebPIterator& frame, bool alpha, Image& canvas) {
  const size_t width = static_cast<size_t>(frame.width), height = static_cast<size_t>(frame.height);
  const size_t stride = static_cast<size_t>(canvas.width) * 3;
  const bool inside = frame.x_offset >= 0 && frame.y_offset >= 0 && frame.width <= canvas.width - frame.x_offset &&
                      frame.height <= canvas.height - frame.y_offset;
  if (!inside) fail(in.where, "WebP is damaged: its first frame is outside of the image");
  uint8_t* first = canvas.rgb.data() + frame.y_offset * stride + frame.x_offset * 3;
  if (alpha && (frame.width < canvas.width || frame.height < canvas.height))
    std::fill(canvas.rgb.begin(), canvas.rgb.end(), uint8_t{255});
  std::vector<uint8_t> rgba(alpha ? width * height * 4 : 0);
  const size_t room = static_cast<size_t>(canvas.rgb.data() + canvas.rgb.size() - first);
  const auto* decoded =
      alpha ? WebPDecodeRGBAInto(frame.fragment.bytes, frame.fragment.size, rgba.data(), rgba.size(),
                                 static_cast<int>(width * 4))
            : WebPDecodeRGBInto(frame.fragment.bytes, frame.fragment.size, first, room, static_cast<int>(stride));
  if (!decoded) fail(in.where, "WebP is damaged or truncated; is the file complete?");
  for (size_t y = 0; alpha && y < height; ++y)
    composite_over_white(rgba.data() + y * width * 4, frame.width, first + y * stride);
}

}  // namespace

DecodedImage decode_webp(const EncodedImage& in) {
  WebPBitstreamFeatures features{};
  if (WebPGetFeatures(in.bytes.data(), in.bytes.size(), &features) != VP8_STATUS_OK)
    fail(in.where, "WebP is damaged or truncated: its header cannot be read");
  check_image_size(in, features.width, features.height);
  const Demuxer file(in.bytes);
  if (!file.demux) fail(in.where, "WebP is damaged or truncated; is the file complete?");
  // The container's own size is what the frame is placed in; it need not be the header's.
  const int64_t width = WebPDemuxGetI(file.demux, WEBP_FF_CANVAS_WIDTH);
  const int64_t height = WebPDemuxGetI(file.demux, WEBP_FF_CANVAS_HEIGHT);
  check_image_size(in, width, height);
  const Frame frame(file);
  if (!frame.found || !frame.it.complete) fail(in.where, "WebP is damaged or truncated: it has no whole frame");
  DecodedImage result{make_image(width, height), webp_orientation(file)};
  const bool alpha = WebPDemuxGetI(file.demux, WEBP_FF_FORMAT_FLAGS) & ALPHA_FLAG;
  decode_frame(in, frame.it, alpha, result.image);
  return result;
}

}  // namespace puna::io::internal
