// SHA-256 in hexadecimal, for comparing with the sums in golden files.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace puna::test {

/// Needs no library: the golden files hold sums of tensors that are too large to keep.
std::string sha256(std::span<const uint8_t> data);

}  // namespace puna::test
