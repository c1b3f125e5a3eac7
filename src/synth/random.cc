#include "synth/random.h"

#include "base/error.h"

namespace puna::synth {
namespace {

uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

}  // namespace

uint64_t Random::next() {
  state_ += 0x9e3779b97f4a7c15U;
  return mix(state_);
}

int64_t Random::below(int64_t n) {
  PUNA_CHECK(n > 0, "a choice among {}", n);
  return static_cast<int64_t>(next() % static_cast<uint64_t>(n));
}

double Random::unit() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

uint64_t content_hash(std::string_view content) {
  uint64_t hash = 0xcbf29ce484222325U;  // FNV-1a, mixed once more
  for (const char c : content) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return mix(hash);
}

}  // namespace puna::synth
