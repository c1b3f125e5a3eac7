// Files that requests may name.
#pragma once

#include <filesystem>
#include <string_view>

namespace puna::server {

/// What `name` is within `directory`, links followed; "" when it is not there, lies outside, or the directory is "".
/// Callers answer all three alike, so that nobody learns what lies outside.
std::filesystem::path allowed_path(const std::filesystem::path& directory, std::string_view name);

}  // namespace puna::server
