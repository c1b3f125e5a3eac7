// Making directories.
#pragma once

#include <filesystem>

namespace puna::io {

/// Makes the directory and those above it, where they are absent. Throws Error, naming it, when that fails.
void make_directories(const std::filesystem::path& dir);

}  // namespace puna::io
