// Any bytes as what a request line asks for, and as a URL to fetch: nothing in them breaks out of a header.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "http/fetch.h"
#include "http/target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto target = puna::http::parse_target(text); target && target->path.find('\0') != std::string::npos)
    std::abort();
  const auto url = puna::http::parse_url(text);
  if (!url) return 0;
  for (const std::string& part : {url->host, url->port, url->target})
    for (const char c : part)
      if (c <= ' ' || c >= 0x7F) std::abort();
  if (url->host.empty() || url->target.empty() || url->target[0] != '/') std::abort();
  puna::http::is_public_address(url->host);
  return 0;
}
