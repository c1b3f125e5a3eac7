// Any bytes as an image: decoded within the limits, or an Error.
#include <zlib.h>

#include <cstring>
#include <vector>

#include "base/error.h"
#include "io/image.h"

namespace {

/// Makes the checksums of PNG chunks right, else no changed PNG gets past the first one.
void mend_png(std::vector<uint8_t>& data) {
  const auto write = [&](size_t at, uint32_t v) {
    for (int i = 0; i < 4; ++i) data[at + i] = static_cast<uint8_t>(v >> (24 - 8 * i));
  };
  if (data.size() < 8 || std::memcmp(data.data(), "\x89PNG", 4) != 0) return;
  for (size_t at = 8; at + 12 <= data.size();) {
    const size_t size = size_t{data[at]} << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3];
    if (size > data.size() - at - 12) return;
    write(at + 8 + size, static_cast<uint32_t>(crc32(0, data.data() + at + 4, static_cast<uInt>(size + 4))));
    at += size + 12;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr puna::io::ImageLimits kLimits{.max_bytes = 1 << 20, .max_pixels = 1 << 20, .max_side = 1 << 14};
  std::vector<uint8_t> bytes(data, data + size);
  mend_png(bytes);
  try {
    const auto image = puna::io::decode_image(std::as_bytes(std::span(bytes)), "fuzz", kLimits);
    if (image.rgb.size() != static_cast<size_t>(image.width) * static_cast<size_t>(image.height) * 3) __builtin_trap();
  } catch (const puna::Error&) {
  }
  return 0;
}
