#include "server/images.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "http/fetch.h"
#include "io/base64.h"
#include "io/file.h"
#include "server/allowed_path.h"
#include "server/api_error.h"

namespace puna::server {
namespace {

constexpr int64_t kMostPixels = 50'000'000;  // of an image, 150 MB decoded
constexpr int64_t kMostBytes = int64_t{32} << 20;
constexpr std::string_view kFile = "file:", kUpload = "attachment:";

std::string data_bytes(std::string_view url, const std::string& field) {
  const std::string shown(url.substr(0, 40));
  const size_t comma = url.find(',');
  const std::string_view head = url.substr(0, comma == std::string_view::npos ? 0 : comma);
  if (!head.ends_with(";base64")) wrong_field(field, OrderedJson(shown), "a data URL in base64");
  auto bytes = io::decode_base64(url.substr(comma + 1));
  if (!bytes) wrong_field(field, OrderedJson(shown), "valid base64 after the comma");
  return std::move(*bytes);
}

std::string file_bytes(std::string_view url, const std::string& field, const std::filesystem::path& directory) {
  if (directory.empty())
    throw ApiError(400, fmt::format("'{}' names a file; the server allows none without --image-dir", field), field);
  std::string name(url.substr(kFile.size()));
  if (name.starts_with("///")) name.erase(0, 2);
  const std::filesystem::path path = allowed_path(directory, name);
  std::error_code error;
  if (path.empty() || !std::filesystem::is_regular_file(path, error))
    throw ApiError(400, fmt::format("'{}' is no file that the server allows", field), field, "invalid_image");
  try {
    return io::read_file(path, kMostBytes);
  } catch (const Error&) {
    throw ApiError(400,
                   fmt::format("'{}' is a file that cannot be read, or of more than {} MiB", field, kMostBytes >> 20),
                   field, "invalid_image");
  }
}

std::string source_bytes(const ImageSource& source, const ImageSources& allowed, const Uploads& uploads,
                         const std::atomic<bool>& stop, std::chrono::steady_clock::time_point until) {
  const std::string_view url = source.url;
  if (url.starts_with("data:")) return data_bytes(url, source.field);
  if (url.starts_with(kFile)) return file_bytes(url, source.field, allowed.directory);
  if (url.starts_with(kUpload)) {
    const auto at = uploads.find(std::string(url.substr(kUpload.size())));
    if (at != uploads.end()) return at->second;
    wrong_field(source.field, OrderedJson(std::string(url.substr(0, 100))), "the name of a part of a multipart body");
  }
  if (allowed.fetch && (url.starts_with("http://") || url.starts_with("https://"))) {
    http::FetchOptions options;
    options.most_bytes = kMostBytes;
    options.stop = &stop;
    options.time =
        std::clamp(std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()),
                   std::chrono::milliseconds(1), options.time);
    try {
      return http::fetch(url, options);
    } catch (const Error& error) {
      if (std::chrono::steady_clock::now() >= until) throw out_of_time("its pictures were read");
      throw ApiError(400, fmt::format("'{}': {}", source.field, error.what()), source.field, "invalid_image");
    }
  }
  wrong_field(source.field, OrderedJson(std::string(url.substr(0, 40))),
              allowed.fetch
                  ? "a data, https or http URL"
                  : "a data URL such as data:image/png;base64,...; nothing is fetched without --fetch-images");
}

}  // namespace

io::Image decode_source(ImageSource& source, const ImageSources& allowed, const Uploads& uploads,
                        const std::atomic<bool>& stop, std::chrono::steady_clock::time_point until) {
  const std::string bytes = source_bytes(source, allowed, uploads, stop, until);
  std::string().swap(source.url);
  io::ImageLimits limits;
  limits.max_bytes = kMostBytes;
  limits.max_pixels = kMostPixels;
  try {
    return io::decode_image(std::as_bytes(std::span(bytes)), source.field, limits);
  } catch (const Error& error) {
    throw ApiError(422, error.what(), source.field, "invalid_image");
  }
}

}  // namespace puna::server
