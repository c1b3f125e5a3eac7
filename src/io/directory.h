// Making directories, and holding one for oneself.
#pragma once

#include <filesystem>
#include <optional>

#include "io/descriptor.h"

namespace puna::io {

/// Makes the directory and those above it, where they are absent. Throws Error, naming it, when that fails.
void make_directories(const std::filesystem::path& dir);

/// Makes the directory where it is absent, and holds it until the descriptor goes; the system lets go of it however the
/// process ends. Nullopt while another one holds it. A file system that knows no locks is no error, other failures are.
std::optional<Descriptor> lock_directory(const std::filesystem::path& dir);

/// Makes what was made or renamed in `dir` durable. Not every file system can flush a directory, so it is no error.
void sync_directory(const std::filesystem::path& dir);

/// Waits until everything written so far to the file system of `dir` is on disk. Throws Error when that fails.
void sync_file_system(const std::filesystem::path& dir);

}  // namespace puna::io
