#include "io/direct_reader.h"

#include <fcntl.h>
#include <liburing.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/memory.h"

namespace puna::io {
namespace {

constexpr int64_t kPieceBytes = 1 << 20;

int64_t nanoseconds(const timespec& time) { return time.tv_sec * 1'000'000'000 + time.tv_nsec; }

}  // namespace

AlignedBytes::AlignedBytes(int64_t bytes) : size_(bytes) {
  const int64_t whole = (std::max<int64_t>(bytes, 1) + kDirectAlignment - 1) / kDirectAlignment * kDirectAlignment;
  data_ = static_cast<std::byte*>(std::aligned_alloc(kDirectAlignment, static_cast<size_t>(whole)));
  if (data_ == nullptr) fail("memory", "there are no {} left", format_bytes(bytes));
}

AlignedBytes::~AlignedBytes() { std::free(data_); }

/// Pieces in flight. Used by the reader's thread alone.
class DirectReader::Ring {
 public:
  struct Piece {
    std::shared_ptr<Job> job;
    int64_t offset = 0, bytes = 0, expected = 0;  // expected: fewer than are asked for where the file ends
    std::byte* to = nullptr;
    bool busy = false;
  };

  static std::unique_ptr<Ring> open(int depth) {
    auto ring = std::unique_ptr<Ring>(new Ring(depth));
    return io_uring_queue_init(static_cast<unsigned>(depth), &ring->ring_, 0) == 0 ? std::move(ring) : nullptr;
  }
  ~Ring() {
    if (ring_.ring_fd > 0) io_uring_queue_exit(&ring_);
  }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  bool full() const { return in_flight_ == pieces_.size(); }
  bool idle() const { return in_flight_ == 0; }

  void push(int fd, const std::shared_ptr<Job>& job, int64_t bytes, int64_t expected) {
    const auto free = std::find_if(pieces_.begin(), pieces_.end(), [](const Piece& p) { return !p.busy; });
    *free = {job, job->offset + job->submitted, bytes, expected, job->to + job->submitted, true};
    job->submitted += bytes;
    ++job->in_flight;
    ++in_flight_;
    queue(fd, *free);
  }

  /// The rest of a piece that came short.
  void again(int fd, Piece& piece, int64_t got) {
    piece.offset += got, piece.to += got, piece.bytes -= got, piece.expected -= got;
    queue(fd, piece);
  }

  /// One piece that is done, with what the system says of it: bytes, or -errno.
  std::pair<Piece*, int> pop() {
    for (;;) {  // until one at least is with the kernel
      const int sent = io_uring_submit(&ring_);
      const bool busy = sent == -EINTR || sent == -EAGAIN || sent == -EBUSY || sent == -ENOMEM;
      PUNA_CHECK(sent >= 0 || busy, "io_uring_submit: {}", std::strerror(-sent));
      if (io_uring_sq_ready(&ring_) < in_flight_) break;
      std::this_thread::yield();
    }
    io_uring_cqe* entry = nullptr;
    int status = -EINTR;
    while (status == -EINTR) status = io_uring_wait_cqe(&ring_, &entry);
    PUNA_CHECK(status == 0, "io_uring_wait_cqe: {}", std::strerror(-status));
    auto* piece = static_cast<Piece*>(io_uring_cqe_get_data(entry));
    const int result = entry->res;
    io_uring_cqe_seen(&ring_, entry);
    return {piece, result};
  }

  void release(Piece& piece) {
    --piece.job->in_flight;
    piece = {};
    --in_flight_;
  }

 private:
  explicit Ring(int depth) : pieces_(static_cast<size_t>(depth)) {}

  void queue(int fd, Piece& piece) {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    PUNA_CHECK(entry != nullptr, "io_uring has no entry for a piece of {} bytes", piece.bytes);
    io_uring_prep_read(entry, fd, piece.to, static_cast<unsigned>(piece.bytes), static_cast<uint64_t>(piece.offset));
    io_uring_sqe_set_data(entry, &piece);
  }

  io_uring ring_{};
  std::vector<Piece> pieces_;
  size_t in_flight_ = 0;
};

DirectReader::DirectReader(const std::filesystem::path& path, int queue_depth) : path_(path) {
  fd_ = ::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  const bool direct = fd_ >= 0;
  if (!direct && errno == EINVAL) fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat info = {};
  if (fd_ < 0 || ::fstat(fd_, &info) != 0) {
    const int error = errno;
    if (fd_ >= 0) ::close(fd_);
    fail(path.string(), "cannot be opened: {}", std::strerror(error));
  }
  if (!S_ISREG(info.st_mode)) {
    ::close(fd_);
    fail(path.string(), "is no file");
  }
  size_ = info.st_size;
  modified_ = nanoseconds(info.st_mtim);
  ring_ = Ring::open(queue_depth);
  method_ = std::string(ring_ ? "io_uring" : "plain reads") + (direct ? ", O_DIRECT" : ", page cache");
  thread_ = std::thread([this] { serve(); });
}

DirectReader::~DirectReader() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    urgent_.clear();
    later_.clear();
  }
  work_.notify_all();
  thread_.join();
  ::close(fd_);
}

DirectReader::Ticket DirectReader::submit(int64_t offset, int64_t bytes, std::byte* to, bool urgent) {
  const bool aligned = offset % kDirectAlignment == 0 && bytes % kDirectAlignment == 0 &&
                       reinterpret_cast<uintptr_t>(to) % kDirectAlignment == 0;
  PUNA_CHECK(aligned && bytes > 0 && offset >= 0, "a read of {} bytes at {}", bytes, offset);
  auto job = std::make_shared<Job>();
  job->offset = offset, job->bytes = bytes, job->to = to;
  job->expected = std::min(bytes, size_ - offset);
  const std::lock_guard lock(mutex_);
  job->ticket = ++last_;
  if (bytes - job->expected >= kDirectAlignment || job->expected <= 0) {
    failed_[job->ticket] = fmt::format("ends at byte {}, where {} are needed; is it whole?", size_, offset + bytes);
    return job->ticket;
  }
  if (job->expected < bytes) std::memset(to + job->expected, 0, static_cast<size_t>(bytes - job->expected));
  (urgent ? urgent_ : later_).push_back(job);
  unfinished_[job->ticket] = job;
  work_.notify_one();
  return job->ticket;
}

void DirectReader::hurry(Ticket ticket) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(later_.begin(), later_.end(), [&](const auto& job) { return job->ticket == ticket; });
  if (found == later_.end()) return;  // begun, or done
  urgent_.push_back(*found);
  later_.erase(found);
}

bool DirectReader::is_done(Ticket ticket) const {
  const std::lock_guard lock(mutex_);
  return !unfinished_.contains(ticket);
}

void DirectReader::wait(Ticket ticket) {
  std::unique_lock lock(mutex_);
  done_.wait(lock, [&] { return !unfinished_.contains(ticket); });
  const auto failed = failed_.find(ticket);
  if (failed == failed_.end()) return;
  const std::string error = failed->second;
  failed_.erase(failed);
  throw Error(path_.string(), error);
}

int64_t DirectReader::bytes_read() const {
  const std::lock_guard lock(mutex_);
  return bytes_read_;
}

std::string DirectReader::changed() const {
  struct stat info = {};
  if (::fstat(fd_, &info) != 0) return fmt::format("cannot be looked at: {}", std::strerror(errno));
  if (info.st_size == size_ && nanoseconds(info.st_mtim) == modified_) return "";
  return "was changed while it was in use; start again";
}

void DirectReader::finish(const std::shared_ptr<Job>& job) {
  if (job->error.empty()) job->error = changed();
  const std::lock_guard lock(mutex_);
  bytes_read_ += job->finished;
  if (!job->error.empty()) failed_[job->ticket] = job->error;
  unfinished_.erase(job->ticket);
  done_.notify_all();
}

/// The job to go on with, or null when there is none. Under no lock.
std::shared_ptr<DirectReader::Job> DirectReader::next_job() {
  const std::lock_guard lock(mutex_);
  for (auto* queue : {&urgent_, &later_})
    if (!queue->empty()) return queue->front();
  return nullptr;
}

void DirectReader::take(const std::shared_ptr<Job>& job) {
  const std::lock_guard lock(mutex_);
  for (auto* queue : {&urgent_, &later_}) std::erase(*queue, job);
}

/// Once per piece of plain reads, or per answer of the ring: `got` bytes of the `wanted` ones, or -errno. True when all
/// are there; the error of a job is its first.
bool DirectReader::settle(Job& job, int64_t got, int64_t wanted, int64_t end) const {
  if (got > 0) job.finished += got;
  if (got >= wanted) return true;
  if (got > 0 || got == -EINTR || got == -EAGAIN) return false;
  if (job.error.empty())
    job.error = got < 0 ? fmt::format("cannot be read: {}", std::strerror(static_cast<int>(-got)))
                        : fmt::format("has less than the {} bytes that it had; start again", end);
  return true;
}

void DirectReader::serve_plainly(const std::shared_ptr<Job>& job) {
  take(job);
  while (job->finished < job->expected && job->error.empty()) {
    const int64_t count = std::min(kPieceBytes, job->bytes - job->finished);
    const ssize_t got = ::pread(fd_, job->to + job->finished, static_cast<size_t>(count), job->offset + job->finished);
    settle(*job, got < 0 ? -errno : got, std::min(count, job->expected - job->finished), size_);
  }
  finish(job);
}

void DirectReader::serve_ring() {
  for (auto job = next_job(); job && !ring_->full(); job = next_job()) {
    const int64_t count = std::min(kPieceBytes, job->bytes - job->submitted);
    ring_->push(fd_, job, count, std::min(count, job->expected - job->submitted));
    if (job->submitted >= job->expected || !job->error.empty()) take(job);
  }
  if (ring_->idle()) return;
  const auto [piece, result] = ring_->pop();
  const std::shared_ptr<Job> job = piece->job;
  if (!settle(*job, result, piece->expected, size_)) return ring_->again(fd_, *piece, std::max(result, 0));
  ring_->release(*piece);
  if (!job->error.empty()) take(job);
  const bool all_given = job->submitted >= job->expected || !job->error.empty();
  if (all_given && job->in_flight == 0) finish(job);
}

void DirectReader::serve() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      const auto idle = [&] { return !ring_ || ring_->idle(); };
      work_.wait(lock, [&] { return stop_ || !urgent_.empty() || !later_.empty() || !idle(); });
      if (stop_ && idle()) return;
    }
    if (ring_) {
      serve_ring();
    } else if (const auto job = next_job()) {
      serve_plainly(job);
    }
  }
}

}  // namespace puna::io
