#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/memory.h"

namespace puna {
namespace {

constexpr int kBarWidth = 24;

std::string format_count(double value, Progress::Unit unit) {
  return unit == Progress::Unit::kBytes ? format_bytes(static_cast<int64_t>(value)) : fmt::format("{:.0f}", value);
}

std::string format_seconds(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  return s < 3600 ? fmt::format("{}:{:02}", s / 60, s % 60)
                  : fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

}  // namespace

Progress::Progress(std::string label, int64_t total, Unit unit)
    : label_(std::move(label)), total_(total), unit_(unit), enabled_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (drawn_) fmt::print(stderr, "\r\033[K");
}

void Progress::set(int64_t done) {
  done_ = done;
  if (!enabled_) return;
  const auto now = Clock::now();
  if (now - start_ < std::chrono::milliseconds(500) || now - last_draw_ < std::chrono::milliseconds(100)) return;
  last_draw_ = now;
  draw(now);
}

void Progress::draw(Clock::time_point now) {
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double rate = static_cast<double>(done_) / seconds;
  std::string line = "\r" + label_;
  if (total_ > 0) {
    const double part = std::clamp(static_cast<double>(done_) / static_cast<double>(total_), 0.0, 1.0);
    const int filled = static_cast<int>(part * kBarWidth);
    line += fmt::format(" [{:#<{}}{:.<{}}] {:3.0f}%", "", filled, "", kBarWidth - filled, part * 100);
  }
  line += fmt::format(" {}, {}/s", format_count(static_cast<double>(done_), unit_), format_count(rate, unit_));
  if (total_ > 0 && rate > 0) line += ", " + format_seconds(static_cast<double>(total_ - done_) / rate) + " left";
  fmt::print(stderr, "{}\033[K", line);
  std::fflush(stderr);
  drawn_ = true;
}

}  // namespace puna
