#include "cache/prefix_hash.h"

#include <random>

namespace puna::cache {
namespace {

uint64_t secret() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) ^ device();
}

}  // namespace

PrefixHasher::PrefixHasher() : secret_a_(secret()), secret_b_(secret()) {}

}  // namespace puna::cache
