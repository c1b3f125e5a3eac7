#include "server/keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <charconv>
#include <sstream>
#include <string>

#include "base/error.h"
#include "io/file.h"

namespace puna::server {
namespace {

constexpr int64_t kMaxFileBytes = 1 << 20;
using Digest = std::array<uint8_t, SHA256_DIGEST_LENGTH>;

Digest read_digest(std::string_view hex, const std::string& where) {
  Digest digest;
  if (hex.size() != 2 * digest.size())
    fail(where, "is no SHA-256 of {} hexadecimal digits; write one with: printf %s KEY | sha256sum", 2 * digest.size());
  for (size_t i = 0; i < digest.size(); ++i) {
    const char* at = hex.data() + 2 * i;
    const auto [end, error] = std::from_chars(at, at + 2, digest[i], 16);
    if (error != std::errc() || end != at + 2) fail(where, "holds '{}', which is not hexadecimal", std::string(at, 2));
  }
  return digest;
}

}  // namespace

Keys::Keys(const std::filesystem::path& file) {
  std::istringstream lines(io::read_file(file, kMaxFileBytes));
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string hex;
    if (words >> hex) digests_.push_back(read_digest(hex, fmt::format("{}:{}", file.string(), number)));
  }
  if (digests_.empty())
    fail(file.string(), "holds no key; add one with: printf %s KEY | sha256sum >> {}", file.string());
}

int Keys::find(std::string_view key) const {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  int found = -1;
  for (int i = 0; i < static_cast<int>(digests_.size()); ++i)
    found = CRYPTO_memcmp(digests_[static_cast<size_t>(i)].data(), digest.data(), digest.size()) == 0 ? i : found;
  return found;
}

}  // namespace puna::server
