// Random choices that are the same on every machine and with every library.
#pragma once

#include <cstdint>
#include <string_view>

namespace puna::synth {

/// SplitMix64 (Steele, Lea, Flood 2014): 64 bits of state, a full-period sequence.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next();
  /// Uniform in [0, n); n > 0.
  int64_t below(int64_t n);
  /// Uniform in [low, high].
  int64_t between(int64_t low, int64_t high) { return low + below(high - low + 1); }
  /// Uniform in [0, 1).
  double unit();
  bool chance(double probability) { return unit() < probability; }
  /// An element of an array, vector or string.
  template <typename List>
  const auto& pick(const List& list) {
    return list[static_cast<size_t>(below(static_cast<int64_t>(std::size(list))))];
  }

 private:
  uint64_t state_;
};

/// 64 bits that depend on every byte; equal on every machine.
uint64_t content_hash(std::string_view content);

}  // namespace puna::synth
