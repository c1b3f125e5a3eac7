// A small byte-level tokenizer made up for tests: 256 bytes, some merges, Llama 4's special names on top.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace puna::test {

/// The text in the byte-level alphabet of tokenizer.json.
std::string to_byte_level(std::string_view bytes);

/// Merged tokens in the order of their priority; each is built of two that come before, or of bytes.
const std::vector<std::string>& tiny_merged_tokens();

/// tokenizer.json of the tiny tokenizer, to be changed by tests of errors.
Json tiny_tokenizer_json();
/// The same as GGUF metadata.
Json tiny_gguf_metadata();

}  // namespace puna::test
