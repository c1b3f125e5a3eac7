// Tokenised documents on disk: memory-mapped shards (safetensors) with a manifest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "text/chat.h"
#include "text/tokenizer.h"

namespace puna::data {

using text::TokenId;

/// An image of a document: its encoded bytes, and the tiles that the tokens were laid out for.
struct ImageView {
  std::span<const std::byte> encoded;
  text::ImageTiles tiles;
};

struct DocumentView {
  std::span<const TokenId> tokens;
  std::span<const uint8_t> loss;  // [tokens] 1: the model is to predict this token
  std::vector<ImageView> images;
};

class Dataset {
 public:
  /// Maps the shards of `dir`. Throws Error naming the shard that is missing, truncated or, with `verify`, whose bytes
  /// are not those that were written.
  static std::shared_ptr<const Dataset> open(const std::filesystem::path& dir, bool verify = true);
  ~Dataset();

  int64_t num_documents() const;
  int64_t num_tokens() const;
  int64_t document_tokens(int64_t document) const;
  DocumentView document(int64_t document) const;
  /// Hash of the tokenizer and of the image layout that it was built for, and of all contents.
  const std::string& tokenizer_hash() const;
  const std::string& content_hash() const;
  const std::string& name() const;

 private:
  struct Impl;
  explicit Dataset(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace puna::data
