// Stopping long work that was asked to stop, as by Ctrl-C.
#pragma once

#include <atomic>
#include <exception>

namespace puna {

/// Work was given up because it was asked to stop. Nothing is wrong, so it is no Error; the command line exits with
/// 130, or 143 after SIGTERM.
class Interrupted : public std::exception {
 public:
  const char* what() const noexcept override { return "interrupted"; }
};

/// Throws Interrupted once the flag is set; null: never.
inline void stop_if_interrupted(const std::atomic<bool>* interrupt) {
  if (interrupt != nullptr && *interrupt) throw Interrupted();
}

}  // namespace puna
