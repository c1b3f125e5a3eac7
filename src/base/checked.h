// Arithmetic on sizes that come from outside: overflow is an error, never a wrapped number.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace puna {

inline std::optional<int64_t> checked_add(int64_t a, int64_t b) {
  int64_t r;
  return __builtin_add_overflow(a, b, &r) ? std::nullopt : std::optional<int64_t>(r);
}

inline std::optional<int64_t> checked_mul(int64_t a, int64_t b) {
  int64_t r;
  return __builtin_mul_overflow(a, b, &r) ? std::nullopt : std::optional<int64_t>(r);
}

/// Product of the extents; nullopt when one is negative or the product exceeds int64. An empty shape has one element.
inline std::optional<int64_t> checked_numel(std::span<const int64_t> shape) {
  int64_t n = 1;
  for (int64_t extent : shape) {
    if (extent < 0) return std::nullopt;
    auto next = checked_mul(n, extent);
    if (!next) return std::nullopt;
    n = *next;
  }
  return n;
}

}  // namespace puna
