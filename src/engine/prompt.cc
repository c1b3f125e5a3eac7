#include "engine/prompt.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "io/file.h"

namespace puna::engine {
namespace {

constexpr uint64_t kImageBit = uint64_t{1} << 63;

// FNV-1a over 8-byte words of the pixels, then the bytes that are left.
uint64_t hash_pixels(const at::Tensor& pixels) {
  const auto* bytes = static_cast<const uint8_t*>(pixels.const_data_ptr());
  const size_t size = static_cast<size_t>(pixels.nbytes());
  uint64_t hash = 0xcbf29ce484222325ull ^ size;
  for (size_t i = 0; i < size; i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes + i, std::min<size_t>(8, size - i));
    hash = (hash ^ word) * 0x100000001b3ull;
    hash ^= hash >> 29;
  }
  return hash;
}

}  // namespace

void check_images(const LoadedModel& loaded, size_t count) {
  if (count > 0 && !loaded.has_vision())
    fail(loaded.name, "is a text-only model and cannot take images; leave out --image, or use a model with vision");
  if (count > 0 && loaded.config().image_token_id < 0)
    fail(loaded.name, "config.json names no <|patch|> token (image_token_index), so that it cannot take images");
  if (count > kMaxImages) fail(loaded.name, "takes at most {} images in one prompt; these are {}", kMaxImages, count);
}

std::vector<uint64_t> content_keys(const LoadedModel& loaded, const Prompt& prompt) {
  std::vector<uint64_t> keys(prompt.tokens.begin(), prompt.tokens.end());
  const auto patch = static_cast<TokenId>(loaded.config().image_token_id);
  size_t image = 0;
  int64_t row = 0;
  for (size_t i = 0; i < keys.size() && image < prompt.image_keys.size(); ++i) {
    if (prompt.tokens[i] != patch) continue;
    keys[i] = (prompt.image_keys[image] + static_cast<uint64_t>(row) * 0x9E3779B97F4A7C15ull) | kImageBit;
    if (++row == prompt.image_rows[image]) ++image, row = 0;
  }
  return keys;
}

void check_prompt(const LoadedModel& loaded, const Prompt& prompt) {
  if (prompt.tokens.empty()) fail("prompt", "is empty; give at least one token");
  const int64_t vocab_size = loaded.config().text.vocab_size;
  for (size_t i = 0; i < prompt.tokens.size(); ++i)
    if (prompt.tokens[i] < 0 || prompt.tokens[i] >= vocab_size)
      fail("prompt", "token {} at position {} is outside the vocabulary of {}; do model and tokenizer belong together?",
           prompt.tokens[i], i, vocab_size);
  if (!prompt.features.defined()) return;
  const auto patch = static_cast<TokenId>(loaded.config().image_token_id);
  const int64_t patches = std::count(prompt.tokens.begin(), prompt.tokens.end(), patch);
  const int64_t rows = std::accumulate(prompt.image_rows.begin(), prompt.image_rows.end(), int64_t{0});
  if (prompt.image_keys.size() != prompt.image_rows.size() || rows != prompt.features.size(0) || rows != patches)
    fail("prompt", "has {} <|patch|> tokens for {} image features of {} images with {} rows", patches,
         prompt.features.size(0), prompt.image_keys.size(), rows);
}

EncodedImage encode_image(const LoadedModel& loaded, const io::Image& image) {
  check_images(loaded, 1);
  const c10::InferenceMode guard;
  const media::TiledImage tiled = media::process_image(image, loaded.image_processor);
  const at::Tensor pixels = tiled.pixels.contiguous();
  EncodedImage encoded;
  encoded.tiles = {tiled.rows, tiled.columns, static_cast<int>(loaded.config().vision->tokens_per_tile())};
  encoded.key = hash_pixels(pixels);
  encoded.features = loaded.model->encode_images(pixels);
  return encoded;
}

EncodedImage encode_image_file(const LoadedModel& loaded, const std::filesystem::path& path) {
  const io::ImageLimits limits;
  const std::string bytes = io::read_file(path, limits.max_bytes);
  return encode_image(loaded, io::decode_image(std::as_bytes(std::span(bytes)), path.string(), limits));
}

Prompt chat_prompt(const LoadedModel& loaded, const std::vector<text::Message>& messages,
                   const std::vector<EncodedImage>& images, const text::ChatOptions& options) {
  check_images(loaded, images.size());
  std::vector<text::ImageTiles> tiles;
  std::vector<at::Tensor> features;
  Prompt prompt;
  for (const EncodedImage& image : images) {
    tiles.push_back(image.tiles);
    features.push_back(image.features);
    prompt.image_keys.push_back(image.key);
    prompt.image_rows.push_back(image.features.size(0));
  }
  prompt.tokens = text::encode_chat(*loaded.tokenizer, messages, tiles, options);
  prompt.image_tiles = std::move(tiles);
  const c10::InferenceMode guard;
  if (!features.empty()) prompt.features = at::cat(features);
  return prompt;
}

Prompt raw_prompt(const LoadedModel& loaded, std::string_view text) {
  Prompt prompt;
  if (const auto bos = loaded.tokenizer->special("<|begin_of_text|>")) prompt.tokens.push_back(*bos);
  const auto ids = loaded.tokenizer->encode(text);
  prompt.tokens.insert(prompt.tokens.end(), ids.begin(), ids.end());
  if (prompt.tokens.empty()) fail("--prompt", "is empty, and this vocabulary has no <|begin_of_text|>; give some text");
  return prompt;
}

}  // namespace puna::engine
