// Any bytes given to the safetensors reader: it parses them or throws puna::Error, and its views lie within them.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const puna::io::TensorFile file = puna::io::parse_safetensors(bytes, nullptr, "fuzz");
    uint64_t sum = 0;
    for (const puna::io::TensorView& tensor : file.tensors())
      for (std::byte b : tensor.bytes) sum += std::to_integer<uint64_t>(b);
    volatile uint64_t sink = sum;
    static_cast<void>(sink);
  } catch (const puna::Error&) {
  }
  return 0;
}
