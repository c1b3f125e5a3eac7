#include "data/shard.h"

#include <algorithm>

#include "base/error.h"
#include "data/tensors.h"
#include "io/hash.h"
#include "io/safetensors.h"

namespace puna::data {
namespace {

constexpr int64_t kMaxTileSide = 1 << 10;
constexpr int64_t kMaxTokensPerTile = 1 << 20;

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

}  // namespace

int64_t num_image_tokens(const text::ImageTiles& tiles) {
  const int64_t cells = int64_t{tiles.rows} * tiles.columns;
  const int64_t separators = cells > 1 ? cells : 0;
  return 3 + separators + int64_t{tiles.num_tiles()} * tiles.tokens_per_tile;
}

void ShardWriter::add(const EncodedDocument& document) {
  PUNA_CHECK(!document.tokens.empty() && document.tokens.size() == document.loss.size(), "{} tokens, {} losses",
             document.tokens.size(), document.loss.size());
  tokens_.insert(tokens_.end(), document.tokens.begin(), document.tokens.end());
  loss_.insert(loss_.end(), document.loss.begin(), document.loss.end());
  for (const auto& image : document.images) {
    const auto bytes = std::as_bytes(std::span(image.encoded));
    const auto [entry, is_new] = files_.emplace(io::hash_of(bytes), static_cast<int64_t>(files_.size()));
    if (is_new) {
      file_bytes_ += image.encoded;
      file_begin_.push_back(static_cast<int64_t>(file_bytes_.size()));
    }
    image_file_.push_back(entry->second);
    image_token_.push_back(image.first_token);
    for (int part : {image.tiles.rows, image.tiles.columns, image.tiles.tokens_per_tile}) image_tiles_.push_back(part);
  }
  document_begin_.push_back(num_tokens());
  image_begin_.push_back(num_images());
}

int64_t ShardWriter::bytes() const {
  const size_t numbers = document_begin_.size() + image_begin_.size() + image_tiles_.size() + image_token_.size() +
                         image_file_.size() + file_begin_.size();
  return static_cast<int64_t>(8 * numbers + 5 * tokens_.size() + file_bytes_.size());
}

int64_t ShardWriter::bytes_with(const EncodedDocument& document) const {
  size_t added = 16 + 5 * document.tokens.size();
  for (const auto& image : document.images) added += 48 + image.encoded.size();
  return bytes() + static_cast<int64_t>(added);
}

void ShardWriter::write(const std::filesystem::path& path) {
  const auto size = [](const auto& values) { return static_cast<int64_t>(values.size()); };
  // The widest first, so that each is aligned.
  io::SafetensorsWriter writer(path, {{"document_begin", DType::I64, {size(document_begin_)}},
                                      {"image_begin", DType::I64, {size(image_begin_)}},
                                      {"image_tiles", DType::I64, {num_images(), 3}},
                                      {"image_token", DType::I64, {num_images()}},
                                      {"image_file", DType::I64, {num_images()}},
                                      {"file_begin", DType::I64, {size(file_begin_)}},
                                      {"tokens", DType::I32, {num_tokens()}},
                                      {"loss", DType::U8, {num_tokens()}},
                                      {"file_bytes", DType::U8, {size(file_bytes_)}}});
  for (const auto* numbers :
       {&document_begin_, &image_begin_, &image_tiles_, &image_token_, &image_file_, &file_begin_})
    writer.write(bytes_of(*numbers));
  writer.write(bytes_of(tokens_));
  writer.write(bytes_of(loss_));
  writer.write(std::as_bytes(std::span(file_bytes_)));
  writer.commit();
  *this = ShardWriter();
}

Shard Shard::open(const std::filesystem::path& path, const TokenRange& range) {
  const std::string where = path.string();
  Shard shard;
  shard.file_ = io::open_safetensors(path);
  const auto numbers = [&](const char* name, int64_t columns = 0) {
    return tensor_of<int64_t>(shard.file_, name, DType::I64, columns, where);
  };
  shard.document_begin_ = numbers("document_begin");
  shard.image_begin_ = numbers("image_begin");
  shard.image_tiles_ = numbers("image_tiles", 3);
  shard.image_token_ = numbers("image_token");
  shard.image_file_ = numbers("image_file");
  shard.file_begin_ = numbers("file_begin");
  shard.tokens_ = tensor_of<TokenId>(shard.file_, "tokens", DType::I32, 0, where);
  shard.loss_ = tensor_of<uint8_t>(shard.file_, "loss", DType::U8, 0, where);
  shard.file_bytes_ = tensor_of<std::byte>(shard.file_, "file_bytes", DType::U8, 0, where);
  shard.check(range, where);
  return shard;
}

void Shard::check(const TokenRange& range, std::string_view where) const {
  check_offsets(document_begin_, tokens_.size(), true, "document_begin", where);
  check_offsets(image_begin_, image_file_.size(), false, "image_begin", where);
  check_offsets(file_begin_, file_bytes_.size(), true, "file_begin", where);
  if (loss_.size() != tokens_.size() || image_begin_.size() != document_begin_.size() ||
      image_tiles_.size() != 3 * image_file_.size() || image_token_.size() != image_file_.size())
    fail(where, "corrupt: the sizes of its tensors contradict each other");
  const auto bad_loss = std::find_if(loss_.begin(), loss_.end(), [](uint8_t x) { return x > 1; });
  if (bad_loss != loss_.end()) fail(where, "corrupt: 'loss' is {} at {}", *bad_loss, bad_loss - loss_.begin());
  check_images(where);
  check_tokens(range, where);
}

void Shard::check_images(std::string_view where) const {
  const auto num_files = static_cast<int64_t>(file_begin_.size()) - 1;
  for (int64_t d = 0; d < num_documents(); ++d) {
    int64_t free_from = 0;
    for (int64_t i = image_begin_[d]; i < image_begin_[d + 1]; ++i) {
      const int64_t rows = image_tiles_[3 * i], columns = image_tiles_[3 * i + 1], each = image_tiles_[3 * i + 2];
      if (rows < 1 || columns < 1 || each < 1 || rows > kMaxTileSide || columns > kMaxTileSide ||
          each > kMaxTokensPerTile / rows / columns)
        fail(where, "corrupt: image {} has {} x {} tiles of {} tokens", i, rows, columns, each);
      if (image_file_[i] < 0 || image_file_[i] >= num_files)
        fail(where, "corrupt: image {} refers to file {} of {}", i, image_file_[i], num_files);
      const int64_t count = num_image_tokens(tiles(i));
      if (image_token_[i] < free_from || image_token_[i] > document_tokens(d) - count)
        fail(where, "corrupt: the {} tokens of image {} do not lie at {} of document {}", count, i, image_token_[i], d);
      free_from = image_token_[i] + count;
    }
  }
}

void Shard::check_tokens(const TokenRange& range, std::string_view where) const {
  for (size_t i = 0; i < tokens_.size(); ++i)
    if (tokens_[i] < 0 || tokens_[i] >= range.vocab_size)
      fail(where, "corrupt: token {} is {}, outside the vocabulary of {}", i, tokens_[i], range.vocab_size);
  const auto patches = [&](int64_t begin, int64_t count) {
    const auto first = tokens_.begin() + begin;
    return std::count(first, first + count, static_cast<TokenId>(range.patch));
  };
  if (range.patch < 0 && num_images() > 0) fail(where, "corrupt: holds images, which its manifest excludes");
  int64_t of_images = 0;
  for (int64_t d = 0; d < num_documents(); ++d) {
    for (int64_t i = image_begin_[d]; i < image_begin_[d + 1]; ++i) {
      const int64_t wanted = int64_t{tiles(i).num_tiles()} * tiles(i).tokens_per_tile;
      if (patches(document_begin_[d] + image_token_[i], num_image_tokens(tiles(i))) != wanted)
        fail(where, "corrupt: image {} is not {} patch tokens", i, wanted);
      of_images += wanted;
    }
  }
  if (range.patch >= 0 && patches(0, num_tokens()) != of_images) fail(where, "corrupt: patch tokens outside of images");
}

text::ImageTiles Shard::tiles(int64_t image) const {
  const auto part = [&](int64_t i) { return static_cast<int>(image_tiles_[3 * image + i]); };
  return {.rows = part(0), .columns = part(1), .tokens_per_tile = part(2)};
}

int64_t Shard::document_tokens(int64_t document) const {
  return document_begin_[document + 1] - document_begin_[document];
}

DocumentView Shard::document(int64_t document) const {
  const auto begin = static_cast<size_t>(document_begin_[document]);
  const auto count = static_cast<size_t>(document_tokens(document));
  DocumentView view{tokens_.subspan(begin, count), loss_.subspan(begin, count), {}};
  for (int64_t i = image_begin_[document]; i < image_begin_[document + 1]; ++i) {
    const int64_t file = image_file_[i], at = file_begin_[file];
    const auto encoded = file_bytes_.subspan(static_cast<size_t>(at), static_cast<size_t>(file_begin_[file + 1] - at));
    view.images.push_back({encoded, tiles(i), image_token_[i]});
  }
  return view;
}

}  // namespace puna::data
