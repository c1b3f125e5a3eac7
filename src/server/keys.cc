#include "server/keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>
#include <string>

#include "base/error.h"
#include "io/file.h"
#include "server/api_error.h"

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

/// "at-once=4"
int64_t read_limit(std::string_view word, std::string_view name, const std::string& where) {
  int64_t value = 0;
  const std::string_view number = word.substr(name.size());
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  if (error != std::errc() || end != number.data() + number.size() || value < 1)
    fail(where, "'{}' needs a whole number from 1 on behind the =", word);
  return value;
}

Keys::Entry read_entry(std::istringstream& words, const std::string& hex, const std::string& where) {
  Keys::Entry entry{read_digest(hex, where), {}};
  for (std::string word; words >> word;) {
    if (word.starts_with("at-once=")) {
      entry.at_once = read_limit(word, "at-once=", where);
    } else if (word.starts_with("per-minute=")) {
      entry.per_minute = read_limit(word, "per-minute=", where);
    } else if (word.find('=') != std::string::npos) {
      fail(where, "'{}' is no limit; there are at-once=N and per-minute=N", word);
    } else if (word != "-" && entry.name.empty()) {
      entry.name = word;
    }
  }
  return entry;
}

}  // namespace

Keys::Keys(const std::filesystem::path& file) {
  std::istringstream lines(io::read_file(file, kMaxFileBytes));
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string hex;
    if (words >> hex) entries_.push_back(read_entry(words, hex, fmt::format("{}:{}", file.string(), number)));
  }
  if (entries_.empty())
    fail(file.string(), "holds no key; add one with: printf %s KEY | sha256sum >> {}", file.string());
}

int Keys::find(std::string_view key) const {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  int found = -1;
  for (int i = 0; i < static_cast<int>(entries_.size()); ++i)
    found = CRYPTO_memcmp((*this)[i].digest.data(), digest.data(), digest.size()) == 0 ? i : found;
  return found;
}

std::shared_ptr<void> KeyMeter::take(int key, Clock::time_point now) {
  if (key < 0) return nullptr;
  const Keys::Entry& entry = keys_[key];
  const std::lock_guard lock(mutex_);
  Use& use = uses_[static_cast<size_t>(key)];
  if (entry.at_once > 0 && *use.running >= entry.at_once)
    throw ApiError(429, fmt::format("This key has {} requests running already; try again soon.", entry.at_once), {},
                   "too_many_requests");
  if (entry.per_minute > 0) {
    // As many as a minute has come to hold, a fresh one at once.
    const auto most = static_cast<double>(entry.per_minute);
    const double minutes = std::chrono::duration<double, std::ratio<60>>(now - use.at).count();
    use.left = use.left < 0 ? most : std::min(most, use.left + minutes * most);
    use.at = now;
    if (use.left < 1) {
      ApiError error(429, fmt::format("This key may ask {} times a minute.", entry.per_minute), {},
                     "too_many_requests");
      error.retry_seconds = static_cast<int>(std::ceil((1 - use.left) * 60 / most));
      throw error;
    }
    use.left -= 1;
  }
  ++*use.running;
  return {nullptr, [running = use.running](void*) { --*running; }};
}

}  // namespace puna::server
