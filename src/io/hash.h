// Hashes of contents, to tell that bytes are those that were written. Not for secrets.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace puna::io {

/// XXH3, 128 bits, as 32 hexadecimal digits.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  void update(std::span<const std::byte> bytes);
  std::string digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string hash_of(std::span<const std::byte> bytes);
/// Throws Error when the file cannot be read.
std::string hash_of_file(const std::filesystem::path& path);

}  // namespace puna::io
