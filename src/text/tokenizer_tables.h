// A tokenizer's contents, for writing it in another format.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace puna::text {

struct TokenizerTables {
  std::vector<std::string> tokens;  // bytes by id; special tokens: their names
  std::vector<uint8_t> is_special;
  std::vector<std::string> merges;  // "a b" in the byte-level alphabet, the first to join first
};

/// Of what Tokenizer::open() reads. Throws Error as it does.
TokenizerTables tokenizer_tables(const std::filesystem::path& path);

}  // namespace puna::text
