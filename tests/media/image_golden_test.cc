// The image processor against every image golden: geometry, bytes of the tiles, normalised values.
#include <fstream>

#include "base/error.h"
#include "media/image_processor.h"
#include "tests/media/sha256.h"
#include "tests/support/golden.h"

namespace puna {
namespace {

namespace fs = std::filesystem;

std::vector<std::byte> read_bytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}

io::Image read_image(const fs::path& path) { return io::decode_image(read_bytes(path), path.filename().string()); }

std::string sha256_of(const at::Tensor& tensor) {
  const at::Tensor t = tensor.contiguous();
  return test::sha256({static_cast<const uint8_t*>(t.const_data_ptr()), t.nbytes()});
}

media::ImageProcessorConfig config_of(const Json& row) {
  media::ImageProcessorConfig config;
  config.tile_size = row.at("tile");
  config.max_tiles = row.at("max_patches");
  config.resize_to_max_canvas = row.at("resize_to_max_canvas");
  return config;
}

/// [3, H, W] of the tiles put together again, without the global tile.
at::Tensor canvas_of(const at::Tensor& tiles, int64_t rows, int64_t columns) {
  const int64_t s = tiles.size(-1);
  return tiles.narrow(0, 0, rows * columns)
      .view({rows, columns, 3, s, s})
      .permute({2, 0, 3, 1, 4})
      .reshape({3, rows * s, columns * s});
}

/// Largest difference in levels to a PNG of the golden set.
int64_t levels_from_png(const at::Tensor& actual, const fs::path& png) {
  io::Image image = read_image(png);
  const at::Tensor expected =
      at::from_blob(image.rgb.data(), {image.height, image.width, 3}, at::kByte).permute({2, 0, 1});
  if (!actual.sizes().equals(expected.sizes())) return 256;
  return (actual.to(at::kShort) - expected.to(at::kShort)).abs().max().item<int64_t>();
}

void check_geometry(const Json& row, const media::TileGeometry& g) {
  using Pair = std::vector<int64_t>;
  EXPECT_EQ((Pair{g.canvas_height, g.canvas_width}), row.at("canvas_hw").get<Pair>());
  EXPECT_EQ((Pair{g.resized_height, g.resized_width}), row.at("resized_hw").get<Pair>());
  EXPECT_EQ((Pair{g.rows, g.columns}), row.at("grid_hw").get<Pair>());
}

/// The sums were made with AVX2; other code paths of the resize may differ by one level.
void check_values(const Json& row, const at::Tensor& tiles, const at::Tensor& pixels) {
  const auto index = row.at("sample_flat_index").get<std::vector<int64_t>>();
  const auto value = row.at("sample_value").get<std::vector<float>>();
  const at::Tensor flat = pixels.reshape(-1).to(at::kFloat);
  std::vector<float> actual;
  for (int64_t i : index) actual.push_back(flat[i].item<float>());
  const bool exact = __builtin_cpu_supports("avx2");
  EXPECT_TRUE(test::all_close(actual, value, exact ? 1e-6 : 2.0 / 255 + 1.0 / 128));
  if (!exact) return;
  for (int64_t t = 0; t < tiles.size(0); ++t)
    EXPECT_EQ(sha256_of(tiles[t]), row.at("tile_u8_sha256").at(t)) << "tile " << t;
  EXPECT_EQ(sha256_of(pixels), row.at("pixel_values_bf16_sha256"));
}

void check_row(const fs::path& dir, const Json& row) {
  const io::Image image = read_image(dir / row.at("file").get<std::string>());
  ASSERT_EQ((std::vector<int>{image.width, image.height}), row.at("orig_wh").get<std::vector<int>>());
  const auto config = config_of(row);
  check_geometry(row, media::tile_geometry(image.height, image.width, config));
  const media::TiledImage tiled = media::process_image(image, config);
  ASSERT_EQ(tiled.pixels.sizes().vec(), row.at("pixel_values_shape").get<std::vector<int64_t>>());
  EXPECT_EQ((std::vector<int>{tiled.rows, tiled.columns}), row.at("grid_hw").get<std::vector<int>>());
  const at::Tensor tiles = media::image_tiles(image, config);
  check_values(row, tiles, tiled.pixels);
  for (const char* key : {"canvas_png", "global_png"}) {
    const fs::path png = row.contains(key) ? dir / row[key].get<std::string>() : fs::path();
    if (png.empty() || !fs::exists(png)) continue;
    const bool global = std::string_view(key) == "global_png";
    EXPECT_LE(levels_from_png(global ? tiles[tiles.size(0) - 1] : canvas_of(tiles, tiled.rows, tiled.columns), png), 1)
        << png.filename();
  }
}

TEST(ImageGolden, TilesOfEveryImage) {
  int rows = 0;
  for (const auto& set : test::golden_sets()) {
    const Json images = read_json_file(set / "images/images.json");
    for (const auto& [name, row] : images.items()) {
      SCOPED_TRACE(name);
      check_row(set / "images", row);
      ++rows;
    }
  }
  EXPECT_GE(rows, 20);
}

TEST(ImageGolden, EveryCanvas) {
  for (const auto& set : test::golden_sets()) {
    const Json golden = read_json_file(set / "images/canvases.json");
    std::vector<std::pair<int, int>> supported;
    for (const auto& pair : golden.at("supported_336_16")) supported.emplace_back(pair.at(0), pair.at(1));
    EXPECT_EQ(media::candidate_canvases(16), supported);
    for (const auto& json : golden.at("rows")) {
      const auto row = json.get<std::vector<int64_t>>();
      media::ImageProcessorConfig config;
      config.tile_size = row[2], config.max_tiles = row[3], config.resize_to_max_canvas = row[4] != 0;
      const auto g = media::tile_geometry(row[1], row[0], config);
      EXPECT_EQ((std::vector<int64_t>{g.rows, g.columns, g.resized_height, g.resized_width}),
                std::vector<int64_t>(row.begin() + 5, row.begin() + 9))
          << json.dump();
    }
  }
}

TEST(ImageGolden, NormalisationTable) {
  for (const auto& set : test::golden_sets()) {
    const auto expected = read_json_file(set / "images/lut.json").at("hf_bf16_bits").get<std::vector<uint16_t>>();
    const at::Tensor table = media::normalisation_table({});
    ASSERT_EQ(table.sizes(), (std::vector<int64_t>{3, 256}));
    for (int64_t i = 0; i < 3 * 256; ++i)
      EXPECT_EQ(table.const_data_ptr<at::BFloat16>()[i].x, expected.at(i % 256)) << "value " << i % 256;
  }
}

}  // namespace
}  // namespace puna
