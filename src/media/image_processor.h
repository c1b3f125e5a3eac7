// src/media: images to pixel tensors: canvas choice, resize, padding, normalisation, tiles (SPEC 5).
// Decoding files is src/io; the tokens that stand for tiles are src/text.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "io/image.h"

namespace puna::media {

inline constexpr int64_t kMaxTiles = 256;  // of a picture

/// From preprocessor_config.json, else the released models' values.
struct ImageProcessorConfig {
  int64_t tile_size = 336;
  int64_t max_tiles = 16;  // "max_patches" in Hugging Face configs
  bool resize_to_max_canvas = false;
  double rescale_factor = 1.0 / 255;
  std::vector<double> mean = {0.5, 0.5, 0.5};
  std::vector<double> std = {0.5, 0.5, 0.5};
};

/// Reads the "image_processor" part of <dir>/processor_config.json, else <dir>/preprocessor_config.json; defaults with
/// `tile_size` (the vision model's image size, which the file must agree with) when neither is there.
ImageProcessorConfig image_processor_config(const std::filesystem::path& dir, int64_t tile_size);

/// preprocessor_config.json of this config, as transformers reads it.
Json image_processor_json(const ImageProcessorConfig& config);

/// The geometry alone, for planning and tests. Sizes are (height, width) in pixels.
struct TileGeometry {
  int64_t canvas_height, canvas_width;
  int64_t resized_height, resized_width;
  int rows, columns;  // tiles
};
/// Candidate canvases as (rows, columns) of tiles, in the order in which ties are settled (SPEC 5.2).
std::vector<std::pair<int, int>> candidate_canvases(int64_t max_tiles);
TileGeometry tile_geometry(int64_t height, int64_t width, const ImageProcessorConfig& config);

/// Resized, padded (with zeros) and cut, before normalisation: [tiles, 3, S, S] u8, in the order of TiledImage::pixels.
at::Tensor image_tiles(const io::Image& image, const ImageProcessorConfig& config);

/// Normalised value of each byte, in bf16 arithmetic as Hugging Face has it (SPEC 5.6): [3, 256] bf16.
at::Tensor normalisation_table(const ImageProcessorConfig& config);

/// One image as the model takes it.
struct TiledImage {
  at::Tensor pixels;  // [tiles, 3, S, S] bf16: row-major tiles, then the global tile when there is more than one
  int rows = 1, columns = 1;
};
TiledImage process_image(const io::Image& image, const ImageProcessorConfig& config);

}  // namespace puna::media
