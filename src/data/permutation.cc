#include "data/permutation.h"

#include <bit>

#include "base/error.h"

namespace puna::data {
namespace {

constexpr uint64_t kRounds = 6;

uint64_t finalise(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

}  // namespace

uint64_t mix(std::initializer_list<uint64_t> values) {
  uint64_t state = 0;
  for (uint64_t value : values) state = finalise(state ^ finalise(value));
  return state;
}

uint64_t mix(std::string_view text) {
  uint64_t state = text.size();
  for (char c : text) state = finalise(state ^ static_cast<uint8_t>(c));
  return state;
}

Permutation::Permutation(uint64_t size, uint64_t key)
    : size_(size), key_(key), half_bits_(size < 2 ? 0 : (std::bit_width(size - 1) + 1) / 2) {
  PUNA_CHECK(size > 0 && half_bits_ <= 31, "a permutation of {} elements", size);
}

uint64_t Permutation::encrypt(uint64_t value) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t left = value >> half_bits_, right = value & mask;
  for (uint64_t round = 0; round < kRounds; ++round) {
    const uint64_t next = left ^ (finalise(finalise(key_ + round) ^ right) & mask);
    left = right;
    right = next;
  }
  return left << half_bits_ | right;
}

uint64_t Permutation::operator()(uint64_t index) const {
  PUNA_CHECK(index < size_, "element {} of {}", index, size_);
  do index = encrypt(index);
  while (index >= size_);
  return index;
}

}  // namespace puna::data
