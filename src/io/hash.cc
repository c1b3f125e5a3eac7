#include "io/hash.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <cerrno>
#include <cstdio>
#include <new>
#include <system_error>
#include <vector>

#include "base/error.h"
#include "io/file.h"

namespace puna::io {

struct Hasher::State {
  XXH3_state_t* xxh = XXH3_createState();
  ~State() { XXH3_freeState(xxh); }
};

Hasher::Hasher() : state_(std::make_unique<State>()) {
  if (!state_->xxh) throw std::bad_alloc();
  XXH3_128bits_reset(state_->xxh);
}
Hasher::~Hasher() = default;

void Hasher::update(std::span<const std::byte> bytes) { XXH3_128bits_update(state_->xxh, bytes.data(), bytes.size()); }

std::string Hasher::digest() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_->xxh);
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::string hash_of(std::span<const std::byte> bytes) {
  Hasher hasher;
  hasher.update(bytes);
  return hasher.digest();
}

// Read by pieces: pages of a mapping would count as this process's memory.
std::string hash_of_file(const std::filesystem::path& path) {
  if (path_exists(path) && !std::filesystem::is_regular_file(path)) fail(path.string(), "is no regular file");
  const auto close = [](std::FILE* file) { std::fclose(file); };
  const std::unique_ptr<std::FILE, decltype(close)> file(std::fopen(path.c_str(), "rbe"), close);
  if (!file) fail(path.string(), "cannot be opened: {}", std::generic_category().message(errno));
  std::vector<std::byte> buffer(size_t{1} << 20);
  Hasher hasher;
  while (const size_t got = std::fread(buffer.data(), 1, buffer.size(), file.get()))
    hasher.update({buffer.data(), got});
  if (std::ferror(file.get())) fail(path.string(), "cannot be read: {}", std::generic_category().message(errno));
  return hasher.digest();
}

}  // namespace puna::io
