#include "io/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "io/descriptor.h"
#include "io/directory.h"
#include "io/write_failure.h"

namespace puna::io {
namespace fs = std::filesystem;
namespace {

std::string reason(int error) { return std::generic_category().message(error); }

// O_NONBLOCK: a pipe given as a model must be an error, not a hang.
int open_for_reading(const fs::path& path, struct stat& info) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail(path.string(), "cannot be opened: {}", reason(errno));
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    fail(path.string(), "is {}, expected a file", S_ISDIR(info.st_mode) ? "a directory" : "no regular file");
  }
  return fd;
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const fs::path& path) {
  struct stat info = {};
  const Descriptor fd(open_for_reading(path, info));
  std::shared_ptr<MappedFile> file(new MappedFile());
  if (info.st_size == 0) return file;
  const auto size = static_cast<size_t>(info.st_size);
  void* const data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd.get(), 0);
  if (data == MAP_FAILED) fail(path.string(), "cannot be mapped into memory: {}", reason(errno));
  file->data_ = static_cast<const std::byte*>(data);
  file->size_ = size;
  return file;
}

MappedFile::~MappedFile() {
  if (size_ > 0) munmap(const_cast<std::byte*>(data_), size_);
}

bool path_exists(const fs::path& path) {
  std::error_code ec;
  const fs::file_status status = fs::status(path, ec);
  if (status.type() == fs::file_type::not_found) return false;
  if (ec) fail(path.string(), "cannot be opened: {}", ec.message());
  return true;
}

std::string read_file(const fs::path& path, int64_t max_bytes) {
  struct stat info = {};
  const Descriptor fd(open_for_reading(path, info));
  if (info.st_size > max_bytes) fail(path.string(), "has {} bytes, more than the limit of {}", info.st_size, max_bytes);
  std::string text(static_cast<size_t>(info.st_size), '\0');
  for (size_t done = 0; done < text.size();) {
    const ssize_t got = read(fd.get(), text.data() + done, text.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(path.string(), "cannot be read: {}", reason(errno));
    if (got == 0) fail(path.string(), "became shorter while it was read");
    done += static_cast<size_t>(got);
  }
  return text;
}

std::string write_failure(int error) {
  if (error == ENOSPC || error == EDQUOT) return "the disk is full; free some space";
  if (error == EFBIG) return reason(error) + ": over the limit on the size of files; raise it (ulimit -f)";
  return reason(error);
}

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)) {
  static std::atomic<int> counter = 0;
  std::error_code ec;
  const fs::file_status status = fs::status(path_, ec);
  if (fs::exists(status) && !fs::is_regular_file(status))
    fail(path_.string(), "cannot be written: is {}", fs::is_directory(status) ? "a directory" : "no regular file");
  temporary_ = path_;
  temporary_ += fmt::format(".tmp.{}.{}", getpid(), counter++);
  fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) fail(path_.string(), "cannot be written: {}", reason(errno));
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  PUNA_CHECK(fd_ >= 0, "{} is written after commit()", path_.string());
  while (!bytes.empty()) {
    const ssize_t wrote = ::write(fd_, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0 && (errno == ENOSPC || errno == EDQUOT))
      fail(path_.string(), "the disk is full with {} bytes of this part unwritten; free some space and try again",
           bytes.size());
    if (wrote < 0) fail(path_.string(), "cannot be written: {}", write_failure(errno));
    bytes = bytes.subspan(static_cast<size_t>(wrote));
  }
}

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void AtomicFile::commit() {
  PUNA_CHECK(fd_ >= 0, "{} is committed twice", path_.string());
  if (fsync(fd_) != 0) fail(path_.string(), "cannot be flushed to disk: {}", reason(errno));
  if (rename(temporary_.c_str(), path_.c_str()) != 0) fail(path_.string(), "cannot be renamed: {}", reason(errno));
  close(fd_);
  fd_ = -1;
  sync_directory(path_.has_parent_path() ? path_.parent_path() : ".");  // else the rename may be lost
}

void write_file(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace puna::io
