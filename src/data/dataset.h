// Tokenised documents on disk: memory-mapped shards (safetensors) with a manifest; docs/DATA.md has the layout.
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
  int64_t first_token = 0;  // where its <|image_start|> is among the document's (or the sample's) tokens
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
  int64_t num_images() const;
  int64_t document_tokens(int64_t document) const;
  DocumentView document(int64_t document) const;

  /// tokenizer_hash() of the tokenizer that it was built with.
  const std::string& tokenizer_hash() const;
  /// encoding_hash() (data/build.h) that it was built for: the tokenizer, and how chats and images become tokens.
  const std::string& encoding_hash() const;
  /// Of all contents.
  const std::string& content_hash() const;
  /// The directory's name.
  const std::string& name() const;

 private:
  struct Impl;
  explicit Dataset(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Of every token's bytes and which are special: tokenizers of equal hash give ids the same meaning.
std::string tokenizer_hash(const text::Tokenizer& tokenizer);

/// Tokens that stand for an image of these tiles (the size of text::image_tokens).
int64_t num_image_tokens(const text::ImageTiles& tiles);

}  // namespace puna::data
