#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "io/file.h"
#include "media/image_processor.h"

namespace puna::media {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxTileSize = 4096;
constexpr int kBilinear = 2;  // Pillow's number for it, used in the "resample" field

/// The fields of one JSON object; absent and null leave the default.
class Fields {
 public:
  Fields(const Json& json, std::string where) : json_(json), where_(std::move(where)) {}

  const std::string& where() const { return where_; }
  const Json* find(const char* key) const {
    const auto it = json_.find(key);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
  }
  void read(const char* key, bool& value) const {
    if (const Json* field = find(key)) value = checked(key, *field, field->is_boolean(), "true or false").get<bool>();
  }
  void read(const char* key, int64_t min, int64_t max, int64_t& value) const {
    const Json* field = find(key);
    if (!field) return;
    value = checked(key, *field, field->is_number_integer(), "an integer").get<int64_t>();
    if (value < min || value > max) fail(where_, "{} is {}; expected {} to {}", key, value, min, max);
  }
  void read(const char* key, double& value) const {
    if (const Json* field = find(key)) value = checked(key, *field, field->is_number(), "a number").get<double>();
  }
  void read(const char* key, std::vector<double>& value) const {
    const Json* field = find(key);
    if (!field) return;
    const auto is_number = [](const Json& x) { return x.is_number(); };
    const bool good = field->is_array() && field->size() == 3 && std::all_of(field->begin(), field->end(), is_number);
    value = checked(key, *field, good, "three numbers").get<std::vector<double>>();
  }
  /// A switch that this processor always has on (or off); the other setting would be silently ignored.
  void require(const char* key, bool wanted) const {
    bool value = wanted;
    read(key, value);
    if (value != wanted) fail(where_, "{} is {}; only {} is supported", key, value, wanted);
  }

 private:
  const Json& checked(const char* key, const Json& field, bool good, const char* expected) const {
    if (!good) fail(where_, "{} is {}; expected {}", key, field.dump().substr(0, 80), expected);
    return field;
  }

  const Json& json_;
  std::string where_;
};

void read_size(const Fields& fields, int64_t& tile_size) {
  const Json* size = fields.find("size");
  if (!size) return;
  if (!size->is_object()) fail(fields.where(), "size is not an object with height and width");
  const Fields sides(*size, fields.where() + ": size");
  int64_t height = tile_size, width = tile_size;
  sides.read("height", 1, kMaxTileSize, height);
  sides.read("width", 1, kMaxTileSize, width);
  if (height != tile_size || width != tile_size)
    fail(fields.where(), "tiles are {} x {} pixels, but the vision model takes {} x {}; are the files of one model?",
         height, width, tile_size, tile_size);
}

ImageProcessorConfig parse(const Json& json, const fs::path& file, int64_t tile_size) {
  if (!json.is_object()) fail(file.string(), "is not a JSON object");
  const Fields fields(json, file.string());
  ImageProcessorConfig config;
  config.tile_size = tile_size;
  read_size(fields, config.tile_size);
  fields.read("max_patches", 1, kMaxTiles, config.max_tiles);
  fields.read("resize_to_max_canvas", config.resize_to_max_canvas);
  fields.read("rescale_factor", config.rescale_factor);
  fields.read("image_mean", config.mean);
  fields.read("image_std", config.std);
  for (const char* key : {"do_resize", "do_rescale", "do_normalize", "do_convert_rgb"}) fields.require(key, true);
  fields.require("do_center_crop", false);
  int64_t resample = kBilinear;
  fields.read("resample", kBilinear, kBilinear, resample);
  if (!std::isfinite(config.rescale_factor)) fail(file.string(), "rescale_factor is {}", config.rescale_factor);
  for (double std : config.std)
    if (std == 0) fail(file.string(), "image_std has a zero: {}", fmt::join(config.std, ", "));
  return config;
}

}  // namespace

ImageProcessorConfig image_processor_config(const fs::path& dir, int64_t tile_size) {
  if (tile_size < 1 || tile_size > kMaxTileSize)
    fail(dir.string(), "vision image_size is {}; expected 1 to {}", tile_size, kMaxTileSize);
  const fs::path nested = dir / "processor_config.json", plain = dir / "preprocessor_config.json";
  if (io::path_exists(nested)) {
    const Json json = read_json_file(nested);
    if (!json.is_object()) fail(nested.string(), "is not a JSON object");
    if (const auto it = json.find("image_processor"); it != json.end() && !it->is_null())
      return parse(*it, nested, tile_size);
  }
  if (io::path_exists(plain)) return parse(read_json_file(plain), plain, tile_size);
  ImageProcessorConfig config;
  config.tile_size = tile_size;
  return config;
}

Json image_processor_json(const ImageProcessorConfig& config) {
  constexpr int kBilinear = 2;
  return {{"do_convert_rgb", true},
          {"do_normalize", true},
          {"do_rescale", true},
          {"do_resize", true},
          {"image_mean", config.mean},
          {"image_std", config.std},
          {"image_processor_type", "Llama4ImageProcessor"},
          {"max_patches", config.max_tiles},
          {"resample", kBilinear},
          {"rescale_factor", config.rescale_factor},
          {"resize_to_max_canvas", config.resize_to_max_canvas},
          {"size", {{"height", config.tile_size}, {"width", config.tile_size}}}};
}

}  // namespace puna::media
