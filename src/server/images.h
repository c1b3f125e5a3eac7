// Where the pictures of requests come from.
#pragma once

#include <atomic>
#include <chrono>
#include <filesystem>
#include <map>
#include <string>

#include "io/image.h"
#include "server/messages.h"

namespace puna::server {

/// What beside data URLs is allowed, by who runs the server.
struct ImageSources {
  std::filesystem::path directory;  // of files that requests may name; empty: none
  bool fetch = false;               // http and https URLs of public addresses
};

/// Bytes of the parts of a multipart body, by name.
using Uploads = std::map<std::string, std::string>;

/// The picture: of a data URL, a file ("file:cat.png", within the directory), an upload ("attachment:NAME"), or
/// fetched. `stop` and `until`: give up what is being fetched. Throws ApiError naming the field.
io::Image decode_source(ImageSource& source, const ImageSources& allowed, const Uploads& uploads,
                        const std::atomic<bool>& stop, std::chrono::steady_clock::time_point until);

}  // namespace puna::server
