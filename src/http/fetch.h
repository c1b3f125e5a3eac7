// Getting one file by http or https, for whoever names an address that this program does not trust.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace puna::http {

/// An IPv4 or IPv6 address that belongs to the public internet: not this machine, a private network, a link, a
/// multicast group, a cloud's own services, or an IPv4 one of these within an IPv6 address.
bool is_public_address(std::string_view address);

struct FetchOptions {
  int64_t most_bytes = int64_t{32} << 20;
  std::chrono::milliseconds time{10'000};  // for all of it, redirects too
  int redirects = 3;
  const std::atomic<bool>* stop = nullptr;  // given up once it is true
  /// Of each address, after names are resolved and at every redirect; the connection goes to the address that was
  /// looked at.
  std::function<bool(std::string_view)> allowed = is_public_address;
};

/// The body of the answer, 200. Throws Error: another status, too long, too late, an address that is not allowed, a
/// certificate that is not the name's.
std::string fetch(std::string_view url, const FetchOptions& options = {});

struct Url {
  bool tls = false;
  std::string host;  // without the brackets of IPv6
  std::string port;
  std::string target;  // path and query
};
/// Of http and https; nothing for all else, for a name with a user, and for characters that a URL does not have.
std::optional<Url> parse_url(std::string_view text);

}  // namespace puna::http
