// Names of prefixes: a chained hash over what each position holds, so that equal names mean equal pasts.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace puna::cache {

struct PrefixHash {
  uint64_t a = 0, b = 0;
  auto operator<=>(const PrefixHash&) const = default;
};

/// Two 64-bit lanes keyed with secrets of this object, so that nobody can choose contents whose names collide.
class PrefixHasher {
 public:
  /// Secrets from the operating system.
  PrefixHasher();

  /// The name of a prefix that is longer by one position, which holds `content`. The empty prefix is PrefixHash().
  PrefixHash next(const PrefixHash& prefix, uint64_t content) const {
    return {mix(prefix.a ^ content, secret_a_), mix(prefix.b ^ content, secret_b_)};
  }

 private:
  // Both halves of a 128-bit product, after an offset that keeps 0 from being absorbing.
  static uint64_t mix(uint64_t x, uint64_t secret) {
    const auto product = static_cast<unsigned __int128>(x + 0x9E3779B97F4A7C15ull) * (secret | 1);
    const uint64_t folded = static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
    return (folded ^ (folded >> 29)) * 0xBF58476D1CE4E5B9ull + secret;
  }

  uint64_t secret_a_, secret_b_;
};

}  // namespace puna::cache

template <>
struct std::hash<puna::cache::PrefixHash> {
  size_t operator()(const puna::cache::PrefixHash& hash) const { return hash.a; }
};
