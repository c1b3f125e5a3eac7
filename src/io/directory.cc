#include "io/directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"

namespace puna::io {

void make_directories(const std::filesystem::path& dir) {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  if (error) fail(dir.string(), "this directory cannot be made: {}; name another place", error.message());
}

std::optional<Descriptor> lock_directory(const std::filesystem::path& dir) {
  make_directories(dir);
  Descriptor fd(open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) fail(dir.string(), "cannot be opened: {}", std::generic_category().message(errno));
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return std::nullopt;
  return fd;
}

void sync_directory(const std::filesystem::path& dir) {
  const Descriptor fd(open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() >= 0) fsync(fd.get());
}

void sync_file_system(const std::filesystem::path& dir) {
  const Descriptor fd(open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0 || syncfs(fd.get()) != 0)
    fail(dir.string(), "cannot be flushed to disk: {}", std::generic_category().message(errno));
}

}  // namespace puna::io
