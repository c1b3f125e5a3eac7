// Pictures: scenes keep their margins, files decode, and what is said of them is true of their pixels.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <span>

#include "io/image.h"
#include "synth/maker.h"
#include "synth/scene.h"
#include "tests/synth/support.h"

namespace puna::synth {
namespace {

io::Image decoded(const std::string& png) { return io::decode_image(std::as_bytes(std::span(png)), "picture"); }

/// Pixels of one colour that touch each other.
struct Blob {
  std::string colour;
  double x = 0, y = 0;  // centre
  int pixels = 0;
};

std::string colour_at(const io::Image& image, int x, int y) {
  static const std::map<std::string, std::array<int, 3>> kColoursSeen = {
      {"red", {219, 26, 26}},    {"green", {26, 153, 51}},   {"blue", {26, 64, 230}}, {"yellow", {245, 214, 13}},
      {"orange", {255, 133, 0}}, {"purple", {128, 26, 166}}, {"black", {13, 13, 13}}, {"pink", {255, 128, 191}}};
  const uint8_t* pixel = &image.rgb[static_cast<size_t>(3 * (y * image.width + x))];
  for (const auto& [name, rgb] : kColoursSeen) {
    if (std::abs(pixel[0] - rgb[0]) + std::abs(pixel[1] - rgb[1]) + std::abs(pixel[2] - rgb[2]) < 12) return name;
  }
  return {};
}

std::vector<Blob> blobs(const io::Image& image) {
  std::vector<Blob> found;
  std::set<std::pair<int, int>> seen;
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      const std::string colour = colour_at(image, x, y);
      if (colour.empty() || seen.contains({x, y})) continue;
      Blob blob{colour};
      std::vector<std::pair<int, int>> open = {{x, y}};
      seen.insert({x, y});
      while (!open.empty()) {
        const auto [px, py] = open.back();
        open.pop_back();
        blob.x += px;
        blob.y += py;
        ++blob.pixels;
        for (const auto& [nx, ny] : {std::pair{px + 1, py}, {px - 1, py}, {px, py + 1}, {px, py - 1}}) {
          if (nx < 0 || ny < 0 || nx >= image.width || ny >= image.height || colour_at(image, nx, ny) != colour)
            continue;
          if (seen.insert({nx, ny}).second) open.emplace_back(nx, ny);
        }
      }
      blob.x /= blob.pixels;
      blob.y /= blob.pixels;
      if (blob.pixels > 20) found.push_back(blob);
    }
  }
  return found;
}

std::string first_colour(const std::string& text, size_t from) {
  size_t best = std::string::npos;
  std::string colour;
  for (const std::string_view name : kColours) {
    const size_t at = text.find(name, from);
    if (at < best) {
      best = at;
      colour = name;
    }
  }
  return colour;
}

const Blob& of_colour(const std::vector<Blob>& all, const std::string& colour) {
  for (const Blob& blob : all) {
    if (blob.colour == colour) return blob;
  }
  throw std::runtime_error("no " + colour);
}

TEST(Pictures, WhatIsSaidIsTrueOfThePixels) {
  std::map<std::string, int> checked;
  for (const data::Record& record : records_of(options_of("pictures", 1'500, Split::kHeldOut))) {
    const std::string question = text_of(record.messages[0]), answer = text_of(record.messages[1]);
    const io::Image image = decoded(record.images[0]);
    const std::vector<Blob> all = blobs(image);
    const std::string where = record.id + ": " + question + " " + answer;
    const size_t left = answer.find(" to the left of "), above = answer.find(" above ");
    if (sort_of(record) == "describe" && (left != std::string::npos || above != std::string::npos)) {
      const Blob& first = of_colour(all, first_colour(answer, 0));
      const Blob& second = of_colour(all, first_colour(answer, std::min(left, above)));
      const double dx = second.x - first.x, dy = second.y - first.y;
      EXPECT_GT(left != std::string::npos ? dx : dy, 14) << where;
      const int across = left != std::string::npos ? image.height : image.width;
      EXPECT_LT(std::abs(left != std::string::npos ? dy : dx), 0.16 * across) << where;
      ++checked["relation"];
    } else if (sort_of(record) == "describe" && std::isdigit(static_cast<unsigned char>(answer[0])) != 0) {
      EXPECT_EQ(static_cast<size_t>(answer[0] - '0'), all.size()) << where;
      for (const Blob& blob : all) EXPECT_EQ(blob.colour, first_colour(answer, 0)) << where;
      ++checked["count"];
    } else if (sort_of(record) == "where" && all.size() == 1) {
      const Blob& blob = all[0];
      const bool third[4] = {blob.x<image.width / 3.0, blob.x> image.width / 1.5,
                             blob.y<image.height / 3.0, blob.y> image.height / 1.5};
      const char* words[4] = {"left", "right", "top", "bottom"};
      for (int i = 0; i < 4; ++i) EXPECT_EQ(answer.find(words[i]) != std::string::npos, third[i]) << where;
      ++checked["place"];
    } else if (sort_of(record) == "colour") {
      EXPECT_NO_THROW(of_colour(
          all, first_colour(std::string(1, static_cast<char>(std::tolower(answer[0]))) + answer.substr(1), 0)));
      ++checked["colour"];
    }
  }
  for (const char* sort : {"relation", "count", "place", "colour"}) EXPECT_GT(checked[sort], 20) << sort;
}

TEST(Pictures, ShapesAreLargeInsideAndApart) {
  int small = 0, wide = 0, high = 0;
  for (uint64_t seed = 0; seed < 5'000; ++seed) {
    Random random(seed);
    const Scene scene = random_scene(random);
    const auto [shorter, longer] = std::minmax(scene.width, scene.height);
    EXPECT_TRUE(shorter >= 60 && longer <= 725 && longer <= 2.1 * shorter) << scene.width << " x " << scene.height;
    small += longer <= 96 ? 1 : 0;
    wide += longer > 96 && scene.width > scene.height ? 1 : 0;
    high += longer > 96 && scene.height > scene.width ? 1 : 0;
    ASSERT_GE(scene.shapes.size(), 1U);
    ASSERT_LE(scene.shapes.size(), 5U);
    for (size_t i = 0; i < scene.shapes.size(); ++i) {
      const Shape& a = scene.shapes[i];
      EXPECT_GE(a.size, 14.0);
      EXPECT_TRUE(a.x - a.size / 2 >= 0 && a.y - a.size / 2 >= 0);
      EXPECT_TRUE(a.x + a.size / 2 <= scene.width && a.y + a.size / 2 <= scene.height);
      for (size_t j = i + 1; j < scene.shapes.size(); ++j) {
        const Shape& b = scene.shapes[j];
        EXPECT_GT(std::max(std::abs(a.x - b.x), std::abs(a.y - b.y)), (a.size + b.size) / 2) << "seed " << seed;
      }
    }
  }
  EXPECT_NEAR(small, 3'500, 200);
  EXPECT_NEAR(wide, 750, 150);
  EXPECT_NEAR(high, 750, 150);
}

TEST(Pictures, ShapesAreAlone) {
  for (const data::Record& record : records_of(options_of("shapes", 300))) {
    EXPECT_EQ(blobs(decoded(record.images[0])).size(), 1U) << record.id;
  }
}

TEST(Pictures, FilesAreSmallAndOfTheSceneSize) {
  size_t bytes = 0;
  const auto records = records_of(options_of("pictures", 400));
  for (const data::Record& record : records) {
    const io::Image image = decoded(record.images[0]);
    EXPECT_TRUE(image.width >= 60 && image.width <= 725 && image.height >= 60 && image.height <= 725);
    EXPECT_LT(record.images[0].size(), 20'000U);
    bytes += record.images[0].size();
  }
  EXPECT_LT(bytes / records.size(), 3'000U);
}

TEST(Pictures, HeldOutScenesAreNotTrainedOn) {
  const auto maker = make_pictures();
  std::set<std::string> train;
  Random random(1);
  for (int64_t i = 0; i < 3'000; ++i) train.insert(draw(*maker, random, Split::kTrain, i).content);
  for (int64_t i = 0; i < 500; ++i) EXPECT_FALSE(train.contains(draw(*maker, random, Split::kHeldOut, i).content));
}

TEST(Pictures, HeldOutOfSeveralShapesAreOtherCombinations) {
  Scene row, column;
  row.kind = Scene::Kind::kRow;
  column.kind = Scene::Kind::kColumn;
  const Shape circle{.shape = 0, .colour = 0, .x = 10, .y = 10, .size = 14, .row = 0, .column = 0};
  const Shape square{.shape = 1, .colour = 2, .x = 50, .y = 10, .size = 14, .row = 0, .column = 2};
  row.shapes = {circle, square};
  column.shapes = {square, circle};
  EXPECT_EQ(row.content(), column.content());
  column.shapes[0].colour = 3;
  EXPECT_NE(row.content(), column.content());
}

}  // namespace
}  // namespace puna::synth
