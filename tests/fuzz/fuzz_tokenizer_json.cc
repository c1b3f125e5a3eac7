// Any bytes as tokenizer.json and as GGUF metadata, and any text through a tokenizer that opens: a reader refuses with
// Error, or gives a tokenizer whose encoding decodes to the text it was given.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "text/split.h"
#include "text/tokenizer.h"

namespace {

using puna::Json;
using puna::text::Specials;
using puna::text::Tokenizer;

/// Without the single bytes no vocabulary opens, and the pattern is long: what a fuzzer would never find is given.
void complete(Json& json) {
  if (!json.is_object() || !json.contains("complete")) return;
  json["pre_tokenizer"]["pretokenizers"] = {{{"type", "Split"}, {"pattern", {{"Regex", puna::text::kSplitPattern}}}},
                                            {{"type", "ByteLevel"}}};
  int extra = 0x100;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    const int code = printable ? b : extra++;
    std::string name;
    if (code >= 0x80) name += static_cast<char>(0xC0 | code >> 6);
    name += static_cast<char>(code >= 0x80 ? 0x80 | (code & 0x3F) : code);
    json["model"]["vocab"][name] = b;
  }
}

void check_round_trip(const std::shared_ptr<const Tokenizer>& tokenizer, std::string_view text) {
  for (const Specials specials : {Specials::kAsText, Specials::kParse}) {
    const auto ids = tokenizer->encode(text, specials);
    if (tokenizer->decode(ids) != text) std::abort();
    puna::text::StreamDecoder stream(tokenizer);
    for (const auto id : ids) {
      if (specials == Specials::kAsText && tokenizer->is_special(id)) std::abort();
      (void)stream.push(id);
    }
    (void)stream.finish();
  }
}

}  // namespace

// The document, then (behind a zero byte) the text.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const std::string_view document = all.substr(0, all.find('\0'));
  const std::string_view text = all.substr(std::min(document.size() + 1, size));
  try {
    Json json = puna::parse_json(document, "fuzz");
    try {
      check_round_trip(Tokenizer::from_gguf(json, "fuzz"), text);
    } catch (const puna::Error&) {
    }
    complete(json);
    check_round_trip(Tokenizer::from_hf_json(json, "fuzz"), text);
  } catch (const puna::Error&) {
  } catch (const Json::exception&) {  // complete() met a value that is no object
  }
  return 0;
}
