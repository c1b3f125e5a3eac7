// What a Tokenizer is made of; for the files that read the tokenizer formats.
#pragma once

#include "text/encoder.h"
#include "text/tokenizer.h"

namespace puna::text {

struct Tokenizer::Impl : BytePairModel {};

/// Readers of the formats. Each throws Error on anything malformed.
BytePairModel read_rank_file(const std::filesystem::path& path, const std::vector<std::string>& specials);
BytePairModel read_hf_tokenizer(const Json& json, std::string_view where);
BytePairModel read_gguf_tokenizer(const Json& metadata, std::string_view where);

/// A list of merges, each ["a", "b"] or "a b" in the byte-level alphabet, in the order of their priority.
std::vector<Merge> read_merges(const Json& list, const Vocabulary& vocabulary, std::string_view where);

}  // namespace puna::text
