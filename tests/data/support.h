// A tokenizer, records and pictures made up for the tests of src/data.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/build.h"
#include "data/dataset.h"
#include "data/record.h"

namespace puna::test {

/// 256 bytes, a few merges, Llama 4's special tokens.
std::shared_ptr<const text::Tokenizer> data_tokenizer();

/// The tokenizer, tiles of 16 pixels and 4 tokens, at most 6 of them.
data::Encoding data_encoding();

/// A PNG of one colour.
std::string png(int width, int height, uint8_t shade);

data::Record document(std::string text);
/// Text before, between and after the pictures: texts.size() == images.size() + 1.
data::Record document_with_images(std::vector<std::string> texts, std::vector<std::string> images);
data::Record chat(std::vector<text::Message> messages, std::vector<std::string> images = {});

/// The records given; throws std::runtime_error in place of record `fail_at`.
class ListSource : public data::RecordSource {
 public:
  explicit ListSource(std::vector<data::Record> records, size_t fail_at = SIZE_MAX)
      : records_(std::move(records)), fail_at_(fail_at) {}
  std::optional<data::Record> next() override;
  std::string fingerprint() const override { return name; }
  double progress() const override { return static_cast<double>(next_) / static_cast<double>(records_.size()); }

  std::string name = "list";

 private:
  std::vector<data::Record> records_;
  size_t next_ = 0, fail_at_;
};

/// Builds the records at `out` and opens the dataset.
std::shared_ptr<const data::Dataset> build_dataset(const std::filesystem::path& out, std::vector<data::Record> records,
                                                   int64_t max_shard_bytes = int64_t{1} << 20);

/// The document's tokens as text, special tokens by name, patches as '.'; those with loss within [ ].
std::string show(const data::DocumentView& document);

}  // namespace puna::test
