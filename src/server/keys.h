// Keys that clients show, known by their SHA-256 alone, and what each may ask.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace puna::server {

class Keys {
 public:
  struct Entry {
    std::array<uint8_t, 32> digest;
    std::string name;        // "" without
    int64_t at_once = 0;     // requests; 0: any number
    int64_t per_minute = 0;  // the same
  };

  /// Every key is right.
  Keys() = default;
  /// A file of lines "<SHA-256 in hex> name at-once=N per-minute=N", the first two as sha256sum writes them; # begins a
  /// comment. Throws Error with the line.
  explicit Keys(const std::filesystem::path& file);

  bool empty() const { return entries_.empty(); }
  /// Which of the file's keys it is; -1: none. Takes the same time whatever the key is.
  int find(std::string_view key) const;
  const Entry& operator[](int index) const { return entries_[static_cast<size_t>(index)]; }
  size_t size() const { return entries_.size(); }

 private:
  std::vector<Entry> entries_;
};

/// Counts what each key asks. Any thread may call it.
class KeyMeter {
 public:
  using Clock = std::chrono::steady_clock;
  /// `keys` must outlive it.
  explicit KeyMeter(const Keys& keys) : keys_(keys), uses_(keys.size()) {}

  /// One of the key's requests at once, for as long as the result lives, also beyond the meter. Throws ApiError 429
  /// with the time to wait.
  std::shared_ptr<void> take(int key, Clock::time_point now = Clock::now());

 private:
  struct Use {
    std::shared_ptr<std::atomic<int64_t>> running = std::make_shared<std::atomic<int64_t>>(0);
    double left = -1;  // of the minute's requests; -1: none was made yet
    Clock::time_point at;
  };

  const Keys& keys_;
  std::mutex mutex_;
  std::vector<Use> uses_;
};

}  // namespace puna::server
