// Meta's tokenizer, loaded once, and the golden files' spellings of texts, ids and bytes.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace puna::test {

inline constexpr const char* kNoRankFile = "Meta's rank file is not here: install llama-models into .venv";

/// Null when the rank file is not there.
std::shared_ptr<const text::Tokenizer> meta_tokenizer();

/// A row's "text", or its "repeat": [piece, count].
std::string golden_text(const Json& row);
/// A row's ids under `key`, or "ids_run_length": [[id, count], ...].
std::vector<text::TokenId> golden_ids(const Json& row, const std::string& key);

std::string to_hex(std::string_view bytes);
std::string from_hex(std::string_view hex);

}  // namespace puna::test
