// Shuffling without a table: the k-th element of a permutation that a key picks.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace puna::data {

/// A well-mixed number of several (splitmix64's finaliser over each).
uint64_t mix(std::initializer_list<uint64_t> values);
/// The same of a text.
uint64_t mix(std::string_view text);

/// A permutation of [0, size) for each key: a Feistel network over the next power of 4, walked until it is back inside.
class Permutation {
 public:
  Permutation(uint64_t size, uint64_t key);
  /// Where `index` < size goes. About 4 rounds of the network at worst, on average.
  uint64_t operator()(uint64_t index) const;

 private:
  uint64_t encrypt(uint64_t value) const;

  uint64_t size_, key_;
  int half_bits_;
};

}  // namespace puna::data
