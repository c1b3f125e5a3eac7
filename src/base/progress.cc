#include "base/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
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

bool goes_on(std::string_view text, size_t at) {
  return at < text.size() && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80;
}

std::string_view first_bytes(std::string_view text, size_t bytes) {
  if (bytes >= text.size()) return text;
  while (bytes > 0 && goes_on(text, bytes)) --bytes;
  return text.substr(0, bytes);
}

std::string_view last_bytes(std::string_view text, size_t bytes) {
  size_t begin = text.size() - std::min(bytes, text.size());
  while (goes_on(text, begin)) ++begin;
  return text.substr(begin);
}

}  // namespace

Progress::Progress(std::string label, int64_t total, Unit unit)
    : label_(std::move(label)), total_(total), unit_(unit), enabled_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (drawn_) fmt::print(stderr, "\r\033[K");
}

void Progress::set(int64_t done) {
  set(done, total_ > 0 ? static_cast<double>(done) / static_cast<double>(total_) : 0);
}

void Progress::set(int64_t done, double part) {
  done_ = done;
  part_ = std::clamp(part, 0.0, 1.0);
  if (!enabled_) return;
  const auto now = Clock::now();
  if (now - start_ < std::chrono::milliseconds(500) || now - last_draw_ < std::chrono::milliseconds(100)) return;
  last_draw_ = now;
  draw(now);
  drawn_ = true;
}

void Progress::start_at(int64_t done, double part) {
  done_ = done_before_ = done;
  part_ = part_before_ = part;
}

void Progress::draw(Clock::time_point now) const {
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double rate = static_cast<double>(done_ - done_before_) / seconds, more = part_ - part_before_;
  std::string line;
  if (total_ > 0 || part_ > 0) {
    const int filled = static_cast<int>(part_ * kBarWidth);
    line += fmt::format(" [{:#<{}}{:.<{}}] {:3.0f}%", "", filled, "", kBarWidth - filled, part_ * 100);
  }
  line += fmt::format(" {}, {}/s", format_count(static_cast<double>(done_), unit_), format_count(rate, unit_));
  if (more > 0) line += ", " + format_seconds(seconds * (1 - part_) / more) + " left";
  fmt::print(stderr, "\r{}\033[K", fitted(label_, line, terminal_columns() - 1));
  std::fflush(stderr);
}

size_t terminal_columns() {
  constexpr size_t kUsual = 80, kLeast = 20;
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kUsual;
  return std::max<size_t>(size.ws_col, kLeast);
}

std::string fitted(std::string_view label, std::string_view rest, size_t columns) {
  constexpr std::string_view kGap = "...";
  std::string line(label);
  if (label.size() + rest.size() > columns && label.size() > kGap.size()) {
    const size_t room = columns - std::min(columns, rest.size() + kGap.size());
    line = fmt::format("{}{}{}", first_bytes(label, room / 2), kGap, last_bytes(label, room - room / 2));
  }
  line += rest;
  return std::string(first_bytes(line, columns));
}

}  // namespace puna
