#include "tests/text/meta_tokenizer.h"

#include <fmt/format.h>

#include "tests/support/golden.h"

namespace puna::test {

std::shared_ptr<const text::Tokenizer> meta_tokenizer() {
  static const auto tokenizer = [] {
    const auto path = meta_rank_file();
    return path.empty() ? nullptr : text::Tokenizer::from_rank_file(path);
  }();
  return tokenizer;
}

std::string golden_text(const Json& row) {
  if (!row.contains("repeat")) return row["text"];
  std::string text;
  for (int i = 0; i < row["repeat"][1].get<int>(); ++i) text += row["repeat"][0].get<std::string>();
  return text;
}

std::vector<text::TokenId> golden_ids(const Json& row, const std::string& key) {
  if (!row.contains("ids_run_length")) return row[key].get<std::vector<text::TokenId>>();
  std::vector<text::TokenId> ids;
  for (const Json& run : row["ids_run_length"])
    ids.insert(ids.end(), run[1].get<size_t>(), run[0].get<text::TokenId>());
  return ids;
}

std::string to_hex(std::string_view bytes) {
  std::string hex;
  for (char c : bytes) hex += fmt::format("{:02x}", static_cast<uint8_t>(c));
  return hex;
}

std::string from_hex(std::string_view hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  return bytes;
}

}  // namespace puna::test
