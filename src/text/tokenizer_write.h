// Writes a vocabulary in the formats that Tokenizer reads: Meta's rank file and Hugging Face's tokenizer.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/tokenizer_tables.h"

namespace puna::text {

/// The prompt format of SPEC 8 for texts and images, as a template for transformers.
extern const std::string_view kChatTemplate;

/// "base64 rank" a line, for Tokenizer::from_rank_file.
std::string rank_file(const std::vector<std::string>& tokens);

/// tokenizer.json: `tokens` by rank, all 256 bytes among them, then the special tokens. The merges are all that the
/// ranks imply, so that it gives the ids that the rank file gives. Throws Error for tokens that no Vocabulary takes.
Json hf_tokenizer_json(const std::vector<std::string>& tokens, const std::vector<std::string>& specials);

/// tokenizer_config.json; without `max_length` (tokens) transformers sets no bound.
Json hf_tokenizer_config(std::optional<int64_t> max_length);

/// Writes tokenizer.model, tokenizer.json, tokenizer_config.json and chat_template.jinja into a directory that is
/// there.
void write_tokenizer(const std::filesystem::path& dir, const std::vector<std::string>& tokens,
                     const std::vector<std::string>& specials);
/// The same of a tokenizer that was read. Throws Error(`where`) when special tokens are not its last ones.
void write_tokenizer(const std::filesystem::path& dir, const TokenizerTables& tokenizer, std::string_view where);

}  // namespace puna::text
