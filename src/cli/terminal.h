// Terminals: interrupts, colours, text to standard output.
#pragma once

#include <atomic>
#include <string>
#include <string_view>

namespace puna::cli {

/// While one lives, Ctrl-C and SIGTERM set flag() instead of ending the program; a second one before reset() ends it
/// with interrupt_status().
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  const std::atomic<bool>& flag() const;
  void reset();

 private:
  void (*previous_[2])(int);
};

/// 143 once a guard has seen SIGTERM, else 130: with what a program that was asked to stop ends.
int interrupt_status();

/// Writes and flushes; throws std::system_error when standard output is closed or full.
void print_now(std::string_view text);

/// Text of a model for the screen: control characters other than newline and tab become U+FFFD when standard output is
/// a terminal, so that no answer can steer it. `text` holds whole characters.
std::string for_screen(std::string_view text);

/// The escape sequences of a style, or nothing when standard output is no terminal or NO_COLOR is set.
struct Style {
  std::string prompt, note, error, reset;
};
Style terminal_style();

/// One line on standard error, dim where it is a terminal.
void say_aside(std::string_view line);

/// All of standard input, at most 64 MiB.
std::string read_standard_input();

}  // namespace puna::cli
