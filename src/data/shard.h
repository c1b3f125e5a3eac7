// One shard of a dataset: some documents, their images, in one safetensors file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "io/tensor_file.h"

namespace puna::data {

/// A document that is to be written.
struct EncodedDocument {
  struct Image {
    std::string encoded;
    text::ImageTiles tiles;
    int64_t first_token = 0;
  };
  std::vector<TokenId> tokens;
  std::vector<uint8_t> loss;  // [tokens]
  std::vector<Image> images;
};

/// Which ids may stand in a shard.
struct TokenRange {
  int64_t vocab_size = 0;
  int64_t patch = -1;  // the id of <|patch|>; -1: no images
};

/// Gathers documents in memory and writes them as one file. Equal image files are kept once.
class ShardWriter {
 public:
  void add(const EncodedDocument& document);
  bool empty() const { return document_begin_.size() == 1; }
  /// Bytes that the file will have, about.
  int64_t bytes() const;
  /// What add() would make of bytes(), at most.
  int64_t bytes_with(const EncodedDocument& document) const;
  int64_t num_documents() const { return static_cast<int64_t>(document_begin_.size()) - 1; }
  int64_t num_tokens() const { return static_cast<int64_t>(tokens_.size()); }
  int64_t num_images() const { return static_cast<int64_t>(image_file_.size()); }
  /// Writes the file whole, and begins the next shard.
  void write(const std::filesystem::path& path);

 private:
  std::vector<int64_t> document_begin_ = {0}, image_begin_ = {0}, image_tiles_, image_token_, image_file_,
                       file_begin_ = {0};
  std::vector<TokenId> tokens_;
  std::vector<uint8_t> loss_;
  std::string file_bytes_;
  std::map<std::string, int64_t> files_;  // by hash
};

/// A mapped shard, every index of which was checked.
class Shard {
 public:
  /// Throws Error naming the file for anything that is not as ShardWriter writes it.
  static Shard open(const std::filesystem::path& path, const TokenRange& range);

  int64_t num_documents() const { return static_cast<int64_t>(document_begin_.size()) - 1; }
  int64_t num_tokens() const { return static_cast<int64_t>(tokens_.size()); }
  int64_t num_images() const { return static_cast<int64_t>(image_file_.size()); }
  int64_t document_tokens(int64_t document) const;
  DocumentView document(int64_t document) const;

 private:
  void check(const TokenRange& range, std::string_view where) const;
  void check_images(std::string_view where) const;
  void check_tokens(const TokenRange& range, std::string_view where) const;
  text::ImageTiles tiles(int64_t image) const;

  io::TensorFile file_;                      // holds the mapping
  std::span<const int64_t> document_begin_;  // [documents + 1] into tokens
  std::span<const int64_t> image_begin_;     // [documents + 1] into images
  std::span<const int64_t> image_tiles_;     // [images, 3] rows, columns, tokens per tile
  std::span<const int64_t> image_token_;     // [images] within the document
  std::span<const int64_t> image_file_;      // [images] into files
  std::span<const int64_t> file_begin_;      // [files + 1] into file_bytes
  std::span<const TokenId> tokens_;          // [tokens]
  std::span<const uint8_t> loss_;            // [tokens]
  std::span<const std::byte> file_bytes_;
};

}  // namespace puna::data
