// Memory-mapped reading and whole-or-nothing writing of files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace puna::io {

/// A private mapping of a whole file. The file must not be shortened while it is mapped. Who casts the const away may
/// write: the written pages become this process's own memory and the file stays as it is.
class MappedFile {
 public:
  /// Throws Error when the file cannot be opened or mapped, or is not a regular file. An empty file has empty bytes.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedFile() = default;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// Whether anything is at `path`. Throws Error when that cannot be told: a name too long, links in a ring, no access.
bool path_exists(const std::filesystem::path& path);

/// Reads a whole file of at most `max_bytes`; throws Error otherwise.
std::string read_file(const std::filesystem::path& path, int64_t max_bytes);

/// Writes to `<path>.tmp.<pid>.<n>`, and on commit() flushes to disk and renames over `path`. Without commit() the
/// temporary file is removed. A full disk is an Error that says so.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  int fd_ = -1;
};

/// Atomic write of a whole text file.
void write_file(const std::filesystem::path& path, std::string_view text);

}  // namespace puna::io
