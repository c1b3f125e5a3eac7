// src/media: images to pixel tensors: canvas choice, resize, padding, normalisation, tiles (SPEC 5).
// Decoding files is src/io; the tokens that stand for tiles are src/text.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "io/image.h"

namespace puna::media {

/// From preprocessor_config.json, else the released models' values.
struct ImageProcessorConfig {
  int64_t tile_size = 336;
  int64_t max_tiles = 16;  // "max_patches" in Hugging Face configs
  bool resize_to_max_canvas = false;
  double rescale_factor = 1.0 / 255;
  std::vector<double> mean = {0.5, 0.5, 0.5};
  std::vector<double> std = {0.5, 0.5, 0.5};
};

/// Reads <dir>/preprocessor_config.json or processor_config.json; defaults with `tile_size` when neither is there.
ImageProcessorConfig image_processor_config(const std::filesystem::path& dir, int64_t tile_size);

/// The geometry alone, for planning and tests. Sizes are (height, width) in pixels.
struct TileGeometry {
  int64_t canvas_height, canvas_width;
  int64_t resized_height, resized_width;
  int rows, columns;  // tiles
};
TileGeometry tile_geometry(int64_t height, int64_t width, const ImageProcessorConfig& config);

/// One image as the model takes it.
struct TiledImage {
  at::Tensor pixels;  // [tiles, 3, S, S] bf16: row-major tiles, then the global tile when there is more than one
  int rows = 1, columns = 1;
};
TiledImage process_image(const io::Image& image, const ImageProcessorConfig& config);

}  // namespace puna::media
