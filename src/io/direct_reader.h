// Reads of a file past the page cache, many at a time: what a model larger than memory is read with.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace puna::io {

inline constexpr int64_t kDirectAlignment = 4096;

/// Memory that direct reads can go to.
class AlignedBytes {
 public:
  /// Throws Error when there is no such memory.
  explicit AlignedBytes(int64_t bytes);
  ~AlignedBytes();
  AlignedBytes(const AlignedBytes&) = delete;
  AlignedBytes& operator=(const AlignedBytes&) = delete;
  std::byte* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  std::byte* data_;
  int64_t size_;
};

/// One file, read by a thread of its own: with O_DIRECT and io_uring, `queue_depth` pieces of at most 1 MiB in flight;
/// where the system allows no io_uring, with plain reads; where the file system has no O_DIRECT, through the page
/// cache. Jobs are served in the order in which they were submitted, urgent ones first. Safe for several callers.
class DirectReader {
 public:
  explicit DirectReader(const std::filesystem::path& path, int queue_depth = 32);
  /// Jobs that have not begun are dropped; those in flight are waited for.
  ~DirectReader();
  DirectReader(const DirectReader&) = delete;
  DirectReader& operator=(const DirectReader&) = delete;

  using Ticket = uint64_t;

  /// `offset`, `bytes` and the address are multiples of kDirectAlignment; `to` must stay until the job is done. The
  /// last piece of a file whose size is no such multiple is zero behind its end.
  Ticket submit(int64_t offset, int64_t bytes, std::byte* to, bool urgent);
  /// Serves the job before all that are not urgent.
  void hurry(Ticket ticket);
  bool is_done(Ticket ticket) const;
  /// Returns when the job is done. Throws Error when it could not be read, or the file is not what it was when it was
  /// opened; a ticket is waited for once.
  void wait(Ticket ticket);

  const std::string& method() const { return method_; }  // "io_uring, O_DIRECT", ...
  int64_t file_bytes() const { return size_; }
  int64_t bytes_read() const;

 private:
  struct Job {
    Ticket ticket = 0;
    int64_t offset = 0, bytes = 0;
    std::byte* to = nullptr;
    int64_t expected = 0;   // fewer than `bytes` where the file ends
    int64_t submitted = 0;  // given to the system
    int64_t finished = 0;
    int64_t in_flight = 0;  // pieces
    std::string error;
  };
  class Ring;

  void serve();
  void serve_ring();
  void serve_plainly(const std::shared_ptr<Job>& job);
  void take(const std::shared_ptr<Job>& job);
  bool settle(Job& job, int64_t got, int64_t wanted, int64_t end) const;
  std::string changed() const;
  void finish(const std::shared_ptr<Job>& job);
  std::shared_ptr<Job> next_job();

  std::filesystem::path path_;
  int fd_ = -1;
  int64_t size_ = 0, modified_ = 0;
  std::string method_;
  std::unique_ptr<Ring> ring_;  // null: plain reads

  mutable std::mutex mutex_;
  std::condition_variable work_, done_;
  std::deque<std::shared_ptr<Job>> urgent_, later_;
  std::map<Ticket, std::shared_ptr<Job>> unfinished_;
  std::map<Ticket, std::string> failed_;
  Ticket last_ = 0;
  int64_t bytes_read_ = 0;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace puna::io
