#include "media/image_processor.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace puna::media {
namespace {

struct Canvas {
  int rows, columns;
};

/// Scales are float32, as in Hugging Face, so that equal scales are equal here and there (SPEC 5.2).
Canvas choose_canvas(int64_t height, int64_t width, const ImageProcessorConfig& config) {
  const int64_t side = config.tile_size;
  Canvas best{0, 0};
  float best_scale = 0;
  for (const auto& [rows, columns] : candidate_canvases(config.max_tiles)) {
    const float scale = std::min(static_cast<float>(rows * side) / static_cast<float>(height),
                                 static_cast<float>(columns * side) / static_cast<float>(width));
    const bool up = scale >= 1, best_up = best_scale >= 1;
    bool better = best.rows == 0;
    if (!better && up != best_up)
      better = up;
    else if (!better && scale != best_scale)
      better = up && !config.resize_to_max_canvas ? scale < best_scale : scale > best_scale;
    else if (!better)
      better = rows * columns < best.rows * best.columns;
    if (better) best = {rows, columns}, best_scale = scale;
  }
  return best;
}

/// A side of the target. Hugging Face keeps sides that come from the canvas as tensors: their scale is float32
/// (SPEC 5.3).
struct TargetSide {
  int64_t pixels;
  bool from_canvas;

  double scale(int64_t original) const {
    if (from_canvas) return static_cast<float>(pixels) / static_cast<float>(original);
    return static_cast<double>(pixels) / static_cast<double>(original);
  }
  int64_t scaled(int64_t original, double scale) const {
    if (from_canvas) return static_cast<int64_t>(std::floor(static_cast<float>(original) * static_cast<float>(scale)));
    return static_cast<int64_t>(std::floor(static_cast<double>(original) * scale));
  }
};

TargetSide target_side(int64_t original, int64_t canvas, const ImageProcessorConfig& config) {
  const int64_t wanted = std::max(original, config.tile_size);
  if (config.resize_to_max_canvas || canvas < wanted) return {canvas, true};
  return {wanted, false};
}

/// [3, H, W] u8 resized exactly as torchvision does: the same operator on the same dtype.
at::Tensor resize(const at::Tensor& image, int64_t height, int64_t width) {
  if (image.size(1) == height && image.size(2) == width) return image;
  return at::_upsample_bilinear2d_aa(image.unsqueeze(0), {height, width}, /*align_corners=*/false).squeeze(0);
}

}  // namespace

std::vector<std::pair<int, int>> candidate_canvases(int64_t max_tiles) {
  // Grouped by aspect ratio, groups in order of first appearance; ratios are compared as the fractions they are.
  std::vector<std::vector<std::pair<int, int>>> groups;
  for (int tiles = static_cast<int>(max_tiles); tiles >= 1; --tiles) {
    for (int rows = 1; rows <= tiles; ++rows) {
      if (tiles % rows != 0) continue;
      const int columns = tiles / rows;
      const auto same = [&](const auto& group) { return group[0].first * columns == rows * group[0].second; };
      auto group = std::find_if(groups.begin(), groups.end(), same);
      if (group == groups.end()) group = groups.emplace(groups.end());
      group->emplace_back(rows, columns);
    }
  }
  std::vector<std::pair<int, int>> all;
  for (const auto& group : groups) all.insert(all.end(), group.begin(), group.end());
  return all;
}

TileGeometry tile_geometry(int64_t height, int64_t width, const ImageProcessorConfig& config) {
  if (height < 1 || width < 1) fail("image", "{} x {} pixels: the image is empty", width, height);
  const auto [rows, columns] = choose_canvas(height, width, config);
  TileGeometry g{rows * config.tile_size, columns * config.tile_size, 0, 0, rows, columns};
  const TargetSide target_h = target_side(height, g.canvas_height, config);
  const TargetSide target_w = target_side(width, g.canvas_width, config);
  const double scale_h = target_h.scale(height), scale_w = target_w.scale(width);
  const bool in_float = target_h.from_canvas || target_w.from_canvas;
  const bool width_limits = in_float ? static_cast<float>(scale_w) < static_cast<float>(scale_h) : scale_w < scale_h;
  g.resized_height = width_limits ? std::min(target_w.scaled(height, scale_w), target_h.pixels) : target_h.pixels;
  g.resized_width = width_limits ? target_w.pixels : std::min(target_h.scaled(width, scale_h), target_w.pixels);
  g.resized_height = std::max<int64_t>(g.resized_height, 1);
  g.resized_width = std::max<int64_t>(g.resized_width, 1);
  return g;
}

at::Tensor image_tiles(const io::Image& image, const ImageProcessorConfig& config) {
  const int64_t side = config.tile_size;
  const TileGeometry g = tile_geometry(image.height, image.width, config);
  PUNA_CHECK(image.rgb.size() == static_cast<size_t>(image.height) * static_cast<size_t>(image.width) * 3,
             "{} x {} image with {} bytes", image.width, image.height, image.rgb.size());
  const at::Tensor whole =
      at::from_blob(const_cast<uint8_t*>(image.rgb.data()), {image.height, image.width, 3}, at::kByte)
          .permute({2, 0, 1});
  const int64_t tiles = int64_t{g.rows} * g.columns;
  at::Tensor canvas = at::zeros({3, g.canvas_height, g.canvas_width}, at::kByte);
  canvas.narrow(1, 0, g.resized_height)
      .narrow(2, 0, g.resized_width)
      .copy_(resize(whole, g.resized_height, g.resized_width));
  at::Tensor result = at::empty({tiles > 1 ? tiles + 1 : 1, 3, side, side}, at::kByte);
  result.narrow(0, 0, tiles)
      .view({g.rows, g.columns, 3, side, side})
      .copy_(canvas.view({3, g.rows, side, g.columns, side}).permute({1, 3, 0, 2, 4}));
  if (tiles > 1) result[tiles].copy_(resize(whole, side, side));
  return result;
}

at::Tensor normalisation_table(const ImageProcessorConfig& config) {
  const auto per_channel = [](const std::vector<double>& values) {
    return at::tensor(values, at::kDouble).to(at::kBFloat16).unsqueeze(1);
  };
  const at::Tensor bytes = at::arange(256, at::kFloat).to(at::kBFloat16) * config.rescale_factor;
  return ((bytes.unsqueeze(0) - per_channel(config.mean)) / per_channel(config.std)).contiguous();
}

TiledImage process_image(const io::Image& image, const ImageProcessorConfig& config) {
  const at::Tensor tiles = image_tiles(image, config);
  const at::Tensor table = normalisation_table(config);
  TiledImage result{at::empty(tiles.sizes(), at::kBFloat16)};
  const TileGeometry g = tile_geometry(image.height, image.width, config);
  result.rows = g.rows, result.columns = g.columns;
  const auto* from = tiles.const_data_ptr<uint8_t>();
  auto* to = result.pixels.mutable_data_ptr<at::BFloat16>();
  const int64_t plane = config.tile_size * config.tile_size;
  for (int64_t p = 0; p < tiles.size(0) * 3; ++p, from += plane, to += plane) {
    const auto* values = table.const_data_ptr<at::BFloat16>() + p % 3 * 256;
    for (int64_t i = 0; i < plane; ++i) to[i] = values[from[i]];
  }
  return result;
}

}  // namespace puna::media
