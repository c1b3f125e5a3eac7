// Any bytes as config.json, params.json and GGUF metadata: a reader refuses with Error, or gives a config that can be
// described, written in Hugging Face's form and read again unchanged.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "arch/config.h"
#include "arch/describe.h"
#include "base/error.h"
#include "base/json.h"

namespace {

using puna::Json;
using puna::arch::Llama4Config;

// Large plans are slow to describe many times over, and no different from small ones.
constexpr int64_t kMaxLayers = 64;

void check(Llama4Config (*read)(const Json&, std::string_view), const Json& json) {
  Llama4Config config;
  try {
    config = read(json, "fuzz");
  } catch (const puna::Error&) {
    return;
  }
  if (config.text.num_hidden_layers > kMaxLayers) return;
  try {
    (void)puna::arch::describe_text(config, "fuzz");
  } catch (const puna::Error&) {  // a cache beyond int64
  }
  Llama4Config again = puna::arch::config_from_hf(puna::arch::config_to_hf(config), "again");
  config.notes.clear(), again.notes.clear();
  if (!(again == config)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Json json;
  try {
    json = puna::parse_json({reinterpret_cast<const char*>(data), size}, "fuzz");
  } catch (const puna::Error&) {
    return 0;
  }
  check(puna::arch::config_from_hf, json);
  check(puna::arch::config_from_meta, json);
  check(puna::arch::config_from_gguf, json);
  return 0;
}
