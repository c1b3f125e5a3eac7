#include "cli/terminal.h"

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <iterator>
#include <system_error>

#include "base/env.h"
#include "base/error.h"

namespace puna::cli {
namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM};

std::atomic<bool> interrupted = false, terminated = false;
static_assert(std::atomic<bool>::is_always_lock_free, "the signal handler stores to it");

void on_interrupt(int signal) {
  if (signal == SIGTERM) terminated = true;
  if (interrupted.exchange(true)) _exit(interrupt_status());
}

}  // namespace

InterruptGuard::InterruptGuard() {
  interrupted = terminated = false;
  struct sigaction action = {}, before = {};
  action.sa_handler = on_interrupt;  // without SA_RESTART: a read at the prompt returns
  for (size_t i = 0; i < std::size(kSignals); ++i) {
    sigaction(kSignals[i], &action, &before);
    previous_[i] = before.sa_handler;
  }
}

InterruptGuard::~InterruptGuard() {
  for (size_t i = 0; i < std::size(kSignals); ++i) std::signal(kSignals[i], previous_[i]);
}

int interrupt_status() { return terminated ? 143 : 130; }

const std::atomic<bool>& InterruptGuard::flag() const { return interrupted; }
void InterruptGuard::reset() { interrupted = false; }

void print_now(std::string_view text) {
  const bool ok = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  if (!ok) throw std::system_error(errno, std::generic_category(), "cannot write");
}

std::string for_screen(std::string_view text) {
  if (isatty(STDOUT_FILENO) != 1) return std::string(text);
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool c1 = byte == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    if (c1) ++i;
    const bool control = (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F || c1;
    control ? out += "\uFFFD" : out += text[i];
  }
  return out;
}

Style terminal_style() {
  if (isatty(STDOUT_FILENO) != 1 || env::no_color()) return {};
  return {"\033[1;36m", "\033[2m", "\033[31m", "\033[0m"};
}

void say_aside(std::string_view line) {
  const bool dim = isatty(STDERR_FILENO) == 1 && !env::no_color();
  fmt::print(stderr, "{}{}{}\n", dim ? "\033[2m" : "", line, dim ? "\033[0m" : "");
}

std::string read_standard_input() {
  constexpr size_t kLimit = 64 << 20;
  std::string text;
  char buffer[1 << 16];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, stdin)) > 0;) {
    text.append(buffer, n);
    if (text.size() > kLimit) fail("standard input", "has more than 64 MiB; give a shorter prompt");
  }
  if (std::ferror(stdin)) fail("standard input", "cannot be read");
  return text;
}

}  // namespace puna::cli
