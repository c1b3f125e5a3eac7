// The tokens' texts beside a dataset's shards, so that it can be shown without the tokenizer that it was built with.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "io/tensor_file.h"
#include "text/tokenizer.h"

namespace puna::data {

class StoredVocabulary {
 public:
  static void write(const std::filesystem::path& dir, const text::Tokenizer& tokenizer);
  /// Throws Error when it is missing, malformed, or not that of the tokenizer with this hash.
  static StoredVocabulary open(const std::filesystem::path& dir, const std::string& tokenizer_hash);

  int64_t size() const { return static_cast<int64_t>(special_.size()); }
  std::string_view bytes(text::TokenId id) const;
  bool is_special(text::TokenId id) const;

 private:
  io::TensorFile file_;
  std::span<const int64_t> begin_;  // [size + 1] into bytes
  std::span<const char> bytes_;
  std::span<const uint8_t> special_;  // [size]
};

}  // namespace puna::data
