// Prompts as the model takes them: token ids, and the features of the images among them.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "engine/limits.h"
#include "engine/loaded_model.h"
#include "io/image.h"
#include "text/chat.h"

namespace puna::engine {

/// One image, processed and encoded.
struct EncodedImage {
  text::ImageTiles tiles;
  at::Tensor features;  // [tiles * tokens_per_tile, D]
  uint64_t key;         // of its pixels: equal images have equal keys
};

/// Tiles and encodes; throws Error for a model without vision.
EncodedImage encode_image(const LoadedModel& loaded, const io::Image& image);
/// Reads a JPEG, PNG or WebP file and encodes it.
EncodedImage encode_image_file(const LoadedModel& loaded, const std::filesystem::path& path);

struct Prompt {
  std::vector<TokenId> tokens;
  at::Tensor features;                        // [patch tokens, D] of all images in order; undefined without images
  std::vector<uint64_t> image_keys;           // one per image
  std::vector<int64_t> image_rows;            // rows of `features` of each image
  std::vector<text::ImageTiles> image_tiles;  // of each image, where chat_prompt() made the prompt
};

/// A conversation in the model's chat format. Throws Error over kMaxImages images.
Prompt chat_prompt(const LoadedModel& loaded, const std::vector<text::Message>& messages,
                   const std::vector<EncodedImage>& images, const text::ChatOptions& options = {});

/// <|begin_of_text|> and the text, without a chat format.
Prompt raw_prompt(const LoadedModel& loaded, std::string_view text);

/// What each position holds, as one number: a token id, or a hash of an image and the row of it. Equal numbers at equal
/// positions are equal inputs.
std::vector<uint64_t> content_keys(const LoadedModel& loaded, const Prompt& prompt);

/// Throws Error for an empty prompt, a token outside the vocabulary, or images that do not fit the <|patch|> tokens.
void check_prompt(const LoadedModel& loaded, const Prompt& prompt);

/// Throws Error when `count` images are too many for a prompt, or any for a model without vision.
void check_images(const LoadedModel& loaded, size_t count);

}  // namespace puna::engine
