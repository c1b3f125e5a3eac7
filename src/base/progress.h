// A progress bar on standard error with rate and time left; silent when standard error is not a terminal.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace puna {

/// Shown only once the work has taken half a second, redrawn at most ten times a second, erased when destroyed.
class Progress {
 public:
  enum class Unit { kItems, kBytes };

  /// `total` in units; 0 or less when unknown: then there is a bar only where set() is told the share.
  Progress(std::string label, int64_t total, Unit unit = Unit::kItems);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void add(int64_t units) { set(done_ + units); }
  void set(int64_t done);
  /// Where the total is known as a share alone: `done` units are `part` (0 to 1) of all.
  void set(int64_t done, double part);
  /// So much was done before: rate and time left are those of the rest.
  void start_at(int64_t done, double part);

 private:
  using Clock = std::chrono::steady_clock;
  void draw(Clock::time_point now) const;

  std::string label_;
  int64_t total_;
  Unit unit_;
  int64_t done_ = 0;
  double part_ = 0;  // of all; 0 while unknown
  int64_t done_before_ = 0;
  double part_before_ = 0;
  bool enabled_;
  bool drawn_ = false;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_draw_ = start_;
};

/// The columns of the terminal at standard error; 80 when it does not say.
size_t terminal_columns();
/// Label and rest as one line of at most `columns` bytes, so that it can be drawn over: the label loses its middle,
/// then the rest its end. UTF-8 is cut between characters.
std::string fitted(std::string_view label, std::string_view rest, size_t columns);

}  // namespace puna
