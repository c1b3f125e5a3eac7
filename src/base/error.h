// src/base: what every folder may use: errors, dtypes, logging, env, JSON reading, memory figures, progress bars.
// It knows nothing of models or tensors' contents; anything with a tensor in it belongs further down the data flow.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace puna {

/// Something the user gave is wrong. One line: "[where] what, with values; what to do".
/// The command line prints it and exits with 1; the server turns it into a JSON error.
class Error : public std::runtime_error {
 public:
  Error(std::string_view where, std::string_view what) : std::runtime_error(fmt::format("[{}] {}", where, what)) {}
};

/// A flag, subcommand or value on the command line is wrong; the command line exits with 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// An invariant of ours is broken (see PUNA_CHECK): a bug in Puna, not in the input.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

/// Throws Error(where, formatted text).
template <typename... Args>
[[noreturn]] void fail(std::string_view where, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(where, fmt::format(format, std::forward<Args>(args)...));
}

namespace internal {
[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& message);
}  // namespace internal

}  // namespace puna

/// Invariant of ours: PUNA_CHECK(a == b, "a is {}, b is {}", a, b). Throws InternalError; always compiled in.
#define PUNA_CHECK(condition, ...)                                                                \
  do {                                                                                            \
    if (!(condition)) [[unlikely]]                                                                \
      ::puna::internal::check_failed(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__)); \
  } while (false)
