#include "http/fetch.h"

#include <openssl/ssl.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>

#include "base/error.h"

namespace puna::http {
namespace {

namespace asio = boost::asio;
namespace bhttp = boost::beast::http;
using asio::ip::tcp;

constexpr size_t kMostUrlBytes = 2048;
constexpr uint32_t kMostHeaderBytes = 16 << 10;

struct Range {
  const char* network;
  int bits;
};
// RFC 6890 and its successors.
constexpr Range kPrivate4[] = {{"0.0.0.0", 8},      {"10.0.0.0", 8},     {"100.64.0.0", 10}, {"127.0.0.0", 8},
                               {"169.254.0.0", 16}, {"172.16.0.0", 12},  {"192.0.0.0", 24},  {"192.0.2.0", 24},
                               {"192.88.99.0", 24}, {"192.168.0.0", 16}, {"198.18.0.0", 15}, {"198.51.100.0", 24},
                               {"203.0.113.0", 24}, {"224.0.0.0", 4},    {"240.0.0.0", 4}};
// Of IPv6, 2000::/3 alone is public, without these.
constexpr Range kPrivate6[] = {{"2001::", 23}, {"2001:db8::", 32}, {"2002::", 16}, {"3fff::", 20}};

template <typename Bytes>
bool is_within(const Bytes& address, const Bytes& network, int bits) {
  for (size_t i = 0; bits > 0; ++i, bits -= 8) {
    const int mask = bits >= 8 ? 0xFF : 0xFF << (8 - bits) & 0xFF;
    if ((address[i] & mask) != (network[i] & mask)) return false;
  }
  return true;
}

bool is_public(const asio::ip::address_v4& address) {
  return std::none_of(std::begin(kPrivate4), std::end(kPrivate4), [&](const Range& range) {
    return is_within(address.to_bytes(), asio::ip::make_address_v4(range.network).to_bytes(), range.bits);
  });
}

bool is_public(const asio::ip::address_v6& address) {
  const auto bytes = address.to_bytes();
  if (address.is_v4_mapped()) return is_public(asio::ip::make_address_v4(asio::ip::v4_mapped, address));
  if ((bytes[0] & 0xE0) != 0x20) return false;
  return std::none_of(std::begin(kPrivate6), std::end(kPrivate6), [&](const Range& range) {
    return is_within(bytes, asio::ip::make_address_v6(range.network).to_bytes(), range.bits);
  });
}

struct Answer {
  int status = 0;
  std::string location, body;
};

template <typename Stream>
asio::awaitable<Answer> ask(Stream& stream, const Url& url, const FetchOptions& options) {
  bhttp::request<bhttp::empty_body> request{bhttp::verb::get, url.target, 11};
  const bool plain_port = url.port == (url.tls ? "443" : "80");
  const std::string name = url.host.find(':') == std::string::npos ? url.host : "[" + url.host + "]";
  request.set(bhttp::field::host, plain_port ? name : name + ":" + url.port);
  request.set(bhttp::field::user_agent, "puna");
  request.set(bhttp::field::accept, "image/jpeg, image/png, image/webp");
  request.set(bhttp::field::connection, "close");
  co_await bhttp::async_write(stream, request, asio::use_awaitable);
  boost::beast::flat_buffer buffer;
  bhttp::response_parser<bhttp::string_body> parser;
  parser.header_limit(kMostHeaderBytes);
  parser.body_limit(static_cast<uint64_t>(options.most_bytes));
  co_await bhttp::async_read(stream, buffer, parser, asio::use_awaitable);
  auto& message = parser.get();
  co_return Answer{static_cast<int>(message.result_int()), std::string(message[bhttp::field::location]),
                   std::move(message.body())};
}

asio::awaitable<Answer> ask(const Url& url, const FetchOptions& options) {
  const auto executor = co_await asio::this_coro::executor;
  tcp::resolver resolver(executor);
  const auto found = co_await resolver.async_resolve(url.host, url.port, asio::use_awaitable);
  std::vector<tcp::endpoint> endpoints;
  for (const auto& entry : found) {
    if (!options.allowed(entry.endpoint().address().to_string()))
      fail("fetch", "'{}' is no public address; nothing of a private network is fetched", url.host);
    endpoints.push_back(entry.endpoint());
  }
  if (!url.tls) {
    tcp::socket socket(executor);
    co_await asio::async_connect(socket, endpoints, asio::use_awaitable);
    co_return co_await ask(socket, url, options);
  }
  asio::ssl::context context(asio::ssl::context::tls_client);
  context.set_default_verify_paths();
  context.set_verify_mode(asio::ssl::verify_peer);
  asio::ssl::stream<tcp::socket> stream(executor, context);
  stream.set_verify_callback(asio::ssl::host_name_verification(url.host));
  SSL_set_tlsext_host_name(stream.native_handle(), url.host.c_str());
  co_await asio::async_connect(stream.lowest_layer(), endpoints, asio::use_awaitable);
  co_await stream.async_handshake(asio::ssl::stream_base::client, asio::use_awaitable);
  co_return co_await ask(stream, url, options);
}

Url checked_url(std::string_view text) {
  auto url = parse_url(text);
  if (!url) fail("fetch", "'{}' is no http or https URL", text.substr(0, 100));
  return std::move(*url);
}

asio::awaitable<std::string> follow(std::string text, const FetchOptions& options) {
  Url url = checked_url(text);
  for (int left = options.redirects;; --left) {
    Answer answer = co_await ask(url, options);
    if (answer.status == 200) co_return std::move(answer.body);
    const bool moved = answer.status >= 301 && answer.status <= 308 && !answer.location.empty();
    if (!moved) fail("fetch", "'{}' answers with status {}", url.host, answer.status);
    if (left == 0) fail("fetch", "'{}' leads on more than {} times", url.host, options.redirects);
    if (answer.location.starts_with('/') && !answer.location.starts_with("//")) {
      const std::string name = url.host.find(':') == std::string::npos ? url.host : "[" + url.host + "]";
      answer.location = fmt::format("{}://{}:{}{}", url.tls ? "https" : "http", name, url.port, answer.location);
    }
    Url next = checked_url(answer.location);
    if (url.tls && !next.tls) fail("fetch", "'{}' leads from https to http", url.host);
    url = std::move(next);
  }
}

}  // namespace

bool is_public_address(std::string_view text) {
  boost::system::error_code error;
  const auto address = asio::ip::make_address(std::string(text), error);
  if (error) return false;
  return address.is_v4() ? is_public(address.to_v4()) : is_public(address.to_v6());
}

std::optional<Url> parse_url(std::string_view text) {
  const auto is_allowed = [](char c) { return c > ' ' && c < 0x7F && c != '\\' && c != '"' && c != '<' && c != '>'; };
  if (text.size() > kMostUrlBytes || !std::all_of(text.begin(), text.end(), is_allowed)) return std::nullopt;
  Url url;
  url.tls = text.starts_with("https://");
  if (!url.tls && !text.starts_with("http://")) return std::nullopt;
  text.remove_prefix(url.tls ? 8 : 7);
  text = text.substr(0, text.find('#'));
  const size_t path = std::min(text.find_first_of("/?"), text.size());
  std::string_view place = text.substr(0, path);
  url.target = std::string(text.substr(path));
  if (!url.target.starts_with('/')) url.target.insert(0, "/");
  if (place.starts_with('[')) {
    const size_t end = place.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    url.host = place.substr(1, end - 1);
    place.remove_prefix(end + 1);
  } else {
    url.host = place.substr(0, place.find(':'));
    place.remove_prefix(url.host.size());
  }
  const auto is_of_name = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == ':';
  };
  if (url.host.empty() || !std::all_of(url.host.begin(), url.host.end(), is_of_name)) return std::nullopt;
  url.port = url.tls ? "443" : "80";
  if (place.empty()) return url;
  url.port = place.substr(1);
  const bool is_number = place[0] == ':' && !url.port.empty() && url.port.size() <= 5 &&
                         url.port.find_first_not_of("0123456789") == std::string::npos;
  if (!is_number || std::stoi(url.port) < 1 || std::stoi(url.port) > 65535) return std::nullopt;
  return url;
}

std::string fetch(std::string_view text, const FetchOptions& options) {
  using Clock = std::chrono::steady_clock;
  std::optional<std::string> body;
  std::exception_ptr error;
  asio::io_context io(1);
  asio::co_spawn(io, follow(std::string(text), options), [&](std::exception_ptr failure, std::string result) {
    error = std::move(failure);
    body = std::move(result);
  });
  const auto until = Clock::now() + options.time;
  while (!body && Clock::now() < until && !(options.stop && *options.stop)) io.run_for(std::chrono::milliseconds(50));
  if (!body) fail("fetch", "the picture did not come within {} ms", options.time.count());
  try {
    if (error) std::rethrow_exception(error);
  } catch (const boost::system::system_error& failure) {
    if (failure.code() == bhttp::error::body_limit)
      fail("fetch", "the file has more than {} MiB", options.most_bytes >> 20);
    fail("fetch", "cannot be fetched: {}", failure.code().message());
  }
  return std::move(*body);
}

}  // namespace puna::http
