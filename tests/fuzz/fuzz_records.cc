// Any bytes as a line of JSONL: a record whose images are referred to in order, each once, or an Error.
#include <string_view>

#include "base/error.h"
#include "data/record_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view line(reinterpret_cast<const char*>(data), size);
  try {
    const auto record = puna::data::parse_record(line, "fuzz", [](const std::string& path) { return path; });
    size_t images = 0;
    for (const auto& message : record.messages)
      for (const auto& part : message.parts)
        if (const auto* image = std::get_if<puna::text::ImagePart>(&part))
          if (image->image != images++) __builtin_trap();
    if (images != record.images.size()) __builtin_trap();
  } catch (const puna::Error&) {
  }
  return 0;
}
