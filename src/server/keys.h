// Keys that clients show, known by their SHA-256 alone.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

namespace puna::server {

class Keys {
 public:
  /// Every key is right.
  Keys() = default;
  /// A file of lines "<SHA-256 in hex> name", as sha256sum writes them; # begins a comment. Throws Error with the line.
  explicit Keys(const std::filesystem::path& file);

  bool empty() const { return digests_.empty(); }
  /// Takes the same time whatever the key is.
  bool hold(std::string_view key) const { return empty() || find(key) >= 0; }
  /// Which of the file's keys it is; -1: none. In the same time too.
  int find(std::string_view key) const;

 private:
  std::vector<std::array<uint8_t, 32>> digests_;
};

}  // namespace puna::server
