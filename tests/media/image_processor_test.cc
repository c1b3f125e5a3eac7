#include "media/image_processor.h"

#include <algorithm>
#include <fstream>

#include <gmock/gmock.h>

#include "base/error.h"
#include "tests/support/golden.h"

namespace puna {
namespace {

namespace fs = std::filesystem;

io::Image plain(int width, int height, uint8_t level) {
  return {width, height, std::vector<uint8_t>(size_t(width) * height * 3, level)};
}

media::TileGeometry geometry(int64_t height, int64_t width) { return media::tile_geometry(height, width, {}); }

TEST(Canvas, CandidatesHoldEveryGridOfUpToSixteenTiles) {
  const auto all = media::candidate_canvases(16);
  for (std::pair<int, int> grid : {std::pair{1, 16}, {16, 1}, {4, 4}, {1, 4}, {3, 5}, {2, 7}})
    EXPECT_TRUE(std::count(all.begin(), all.end(), grid)) << grid.first << " x " << grid.second;
  EXPECT_EQ(all.size(), 50u);  // divisors of 1..16
}

TEST(Canvas, SmallestUpscaleElseLargestDownscaleTiesByArea) {
  const auto grid = [](int64_t h, int64_t w) { return std::pair(geometry(h, w).rows, geometry(h, w).columns); };
  EXPECT_EQ(grid(100, 100), std::pair(1, 1));
  EXPECT_EQ(grid(337, 336), std::pair(2, 1));
  EXPECT_EQ(grid(480, 640), std::pair(2, 2));
  EXPECT_EQ(grid(300, 336 * 16), std::pair(1, 16));
  EXPECT_EQ(grid(5000, 5000), std::pair(4, 4));
}

TEST(Canvas, UpscalingStopsAtTheTileSize) {
  const auto g = geometry(100, 50);
  EXPECT_EQ(g.resized_height, 336);
  EXPECT_EQ(g.resized_width, 168);
  const auto wide = geometry(90, 400);  // fits 1 x 2 with room to spare: neither side may grow beyond max(side, 336)
  EXPECT_EQ(wide.resized_width, 400);
  EXPECT_EQ(wide.resized_height, 90);
}

TEST(Canvas, SidesFromTheCanvasScaleInFloat32) {
  const media::ImageProcessorConfig four{.max_tiles = 4};
  const auto g = media::tile_geometry(600, 800, four);
  EXPECT_EQ(g.resized_height, 503);  // 504 in double arithmetic
  EXPECT_EQ(g.resized_width, 672);
}

TEST(Canvas, EverySizeFitsItsCanvas) {
  for (int64_t max_tiles : {1, 4, 9, 16})
    for (int64_t h = 1; h < 70'000; h = h * 3 / 2 + 1)
      for (int64_t w = 1; w < 70'000; w = w * 4 / 3 + 1)
        for (bool max_canvas : {false, true}) {
          const auto g = media::tile_geometry(h, w, {.max_tiles = max_tiles, .resize_to_max_canvas = max_canvas});
          ASSERT_LE(g.rows * g.columns, max_tiles);
          ASSERT_TRUE(g.resized_height >= 1 && g.resized_height <= g.canvas_height) << h << " x " << w;
          ASSERT_TRUE(g.resized_width >= 1 && g.resized_width <= g.canvas_width) << h << " x " << w;
        }
}

TEST(Tiles, PaddingIsBlackBeforeNormalising) {
  const auto tiled = media::process_image(plain(336, 168, 255), {});
  ASSERT_EQ(tiled.pixels.sizes(), (std::vector<int64_t>{1, 3, 336, 336}));
  EXPECT_EQ(tiled.pixels[0].narrow(1, 0, 168).min().item<float>(), 1.0f);
  EXPECT_EQ(tiled.pixels[0].narrow(1, 168, 168).max().item<float>(), -1.0f);
}

TEST(Tiles, SixteenTilesAndTheGlobalOneMakeSeventeen) {
  const auto tiled = media::process_image(plain(1344, 1344, 7), {});
  EXPECT_EQ(tiled.pixels.size(0), 17);
  EXPECT_EQ(std::pair(tiled.rows, tiled.columns), std::pair(4, 4));
  EXPECT_EQ(media::process_image(plain(336, 336, 7), {}).pixels.size(0), 1);
}

TEST(Tiles, AreRowMajor) {
  io::Image image = plain(672, 672, 0);
  for (int y = 0; y < 672; ++y)
    for (int x = 0; x < 672; ++x) image.rgb[3 * (size_t(y) * 672 + x)] = static_cast<uint8_t>(10 * (y / 336) + x / 336);
  const auto tiles = media::image_tiles(image, {});
  ASSERT_EQ(tiles.size(0), 5);
  const int expected[] = {0, 1, 10, 11};
  for (int t = 0; t < 4; ++t) EXPECT_TRUE((tiles[t][0] == expected[t]).all().item<bool>()) << "tile " << t;
}

TEST(Tiles, GlobalTileIsSquashedNotPadded) {
  const auto tiles = media::image_tiles(plain(1000, 300, 200), {});
  ASSERT_EQ(tiles.size(0), 4);  // 1 x 3 and the global tile
  EXPECT_EQ(tiles[3].min().item<int>(), 200);
  EXPECT_EQ(tiles[2].min().item<int>(), 0);
}

TEST(Tiles, ExtremeShapes) {
  for (auto [width, height] : {std::pair{1, 1}, {1, 65535}, {65535, 1}, {2, 3}, {40'000, 2}}) {
    const auto tiled = media::process_image(plain(width, height, 255), {});
    const int64_t tiles = int64_t{tiled.rows} * tiled.columns;
    EXPECT_EQ(tiled.pixels.size(0), tiles > 1 ? tiles + 1 : 1) << width << " x " << height;
    EXPECT_EQ(tiled.pixels[0][0][0][0].item<float>(), 1.0f);
  }
  EXPECT_THROW(media::process_image({}, {}), Error);
}

class ProcessorConfig : public testing::Test {
 protected:
  void write(const char* name, std::string_view text) { std::ofstream(dir_.path() / name) << text; }
  media::ImageProcessorConfig read(int64_t tile_size = 56) {
    return media::image_processor_config(dir_.path(), tile_size);
  }
  std::string error_of(std::string_view text) {
    write("preprocessor_config.json", text);
    try {
      read();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }
  test::TemporaryDirectory dir_;
};

TEST_F(ProcessorConfig, DefaultsWithoutFiles) {
  const auto config = read(448);
  EXPECT_EQ(config.tile_size, 448);
  EXPECT_EQ(config.max_tiles, 16);
  EXPECT_FALSE(config.resize_to_max_canvas);
}

TEST_F(ProcessorConfig, NestedPartWinsOverThePlainFile) {
  write("preprocessor_config.json",
        R"({"max_patches": 4, "size": {"height": 56, "width": 56}, "do_center_crop": null})");
  EXPECT_EQ(read().max_tiles, 4);
  write("processor_config.json", R"({"patch_size": 14})");
  EXPECT_EQ(read().max_tiles, 4);
  write("processor_config.json", R"({"image_processor": {"max_patches": 9, "resize_to_max_canvas": true}})");
  EXPECT_EQ(read().max_tiles, 9);
  EXPECT_TRUE(read().resize_to_max_canvas);
}

TEST_F(ProcessorConfig, MeanAndStdReachTheTable) {
  write("preprocessor_config.json",
        R"({"image_mean": [0, 0.5, 1], "image_std": [1, 0.5, 0.25], "rescale_factor": 0.5})");
  const auto table = media::normalisation_table(read());
  const float expected[] = {1.0f, 1.0f, 0.0f};  // byte 2: (1 - mean) / std
  for (int c = 0; c < 3; ++c) EXPECT_EQ(table[c][2].item<float>(), expected[c]);
}

TEST_F(ProcessorConfig, ChannelsAreNormalisedByTheirOwnValues) {
  media::ImageProcessorConfig config{.tile_size = 4, .mean = {0, 0.5, 1}, .std = {1, 0.5, 0.25}};
  const auto pixels = media::process_image(plain(4, 4, 255), config).pixels;
  const float expected[] = {1.0f, 1.0f, 0.0f};
  for (int c = 0; c < 3; ++c) EXPECT_EQ(pixels[0][c][3][3].item<float>(), expected[c]);
}

TEST_F(ProcessorConfig, WrongValuesAreNamed) {
  using testing::HasSubstr;
  EXPECT_EQ(error_of("{}"), "no error");
  EXPECT_THAT(error_of("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(error_of(R"({"max_patches": 0})"), HasSubstr("max_patches is 0; expected 1 to 256"));
  EXPECT_THAT(error_of(R"({"max_patches": 1000000000})"), HasSubstr("expected 1 to 256"));
  EXPECT_THAT(error_of(R"({"max_patches": 18446744073709551615})"), HasSubstr("max_patches"));
  EXPECT_THAT(error_of(R"({"max_patches": "16"})"), HasSubstr("expected an integer"));
  EXPECT_THAT(error_of(R"({"size": {"height": 336, "width": 336}})"), HasSubstr("the vision model takes 56 x 56"));
  EXPECT_THAT(error_of(R"({"size": 56})"), HasSubstr("size is not an object"));
  EXPECT_THAT(error_of(R"({"image_std": [1, 0, 1]})"), HasSubstr("image_std has a zero"));
  EXPECT_THAT(error_of(R"({"image_mean": [1, 0]})"), HasSubstr("image_mean is [1,0]; expected three numbers"));
  EXPECT_THAT(error_of(R"({"do_normalize": false})"), HasSubstr("do_normalize is false; only true is supported"));
  EXPECT_THAT(error_of(R"({"resample": 3})"), HasSubstr("resample is 3"));
  EXPECT_THAT(error_of(R"({"rescale_factor": true})"), HasSubstr("rescale_factor is true; expected a number"));
}

}  // namespace
}  // namespace puna
