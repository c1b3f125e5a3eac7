// Any bytes as the URL of a picture: an image within the limits, or an ApiError.
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "server/api_error.h"
#include "server/images.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::atomic<bool> stop = true;
  const puna::server::Uploads uploads = {{"a", std::string(reinterpret_cast<const char*>(data), size)}};
  for (const char* before : {"", "data:image/png;base64,", "data:", "file:", "attachment:"}) {
    puna::server::ImageSource source{before + std::string(reinterpret_cast<const char*>(data), size), "field"};
    try {
      const auto image = puna::server::decode_source(source, {}, uploads, stop, {});
      if (image.rgb.size() != static_cast<size_t>(image.width) * static_cast<size_t>(image.height) * 3) std::abort();
    } catch (const puna::server::ApiError& error) {
      if ((error.status != 400 && error.status != 422) || error.field != "field") std::abort();
    }
  }
  return 0;
}
