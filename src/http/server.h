// An HTTP/1.1 server (RFC 9112) on Boost.Beast: connections, limits, time limits, streamed answers, draining.
// It knows nothing of what is answered. One thread moves all bytes; handlers must return soon.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "http/exchange.h"

namespace puna::http {

struct Limits {
  int64_t header_bytes = 64 << 10;                  // beyond: 431
  int64_t body_bytes = int64_t{64} << 20;           // of one request; beyond: 413
  int64_t all_bodies_bytes = int64_t{512} << 20;    // of all requests that are being read or answered; beyond: 503
  int64_t all_buffered_bytes = int64_t{512} << 20;  // of answers on their way, requests behind others; beyond: 503
  int64_t connections = 20'000;                     // beyond: closed at once
  std::chrono::milliseconds header_time{10'000};    // from a request's first byte to the end of its header: 408
  std::chrono::milliseconds body_time{60'000};      // for its body: 408
  std::chrono::milliseconds idle_time{300'000};     // between requests
  std::chrono::milliseconds write_time{60'000};     // for a client to take 64 KiB and a 16th of what waits; else: gone
  std::chrono::milliseconds ping_time{15'000};      // of silence in an event stream, then a comment keeps it alive
};

struct Tls {
  std::filesystem::path certificate, key;  // PEM; the certificate with its chain
};

struct ServerOptions {
  /// Asked once a request's header has come, of it without its body: false passes it on as it is, without reading the
  /// body, and the connection ends after the answer. Empty: all bodies are read.
  std::function<bool(const Request&)> takes_body;
  std::string address = "127.0.0.1";
  uint16_t port = 8080;  // 0: any free one
  std::optional<Tls> tls;
  Limits limits;
};

struct ServerStats {
  int64_t open_connections = 0, open_requests = 0;
  int64_t accepted = 0, refused = 0;
};

/// Called on the server's thread for every request that was read whole, or whose body ServerOptions::takes_body
/// declined: it is empty then. Exceptions are answered with 500.
using Handler = std::function<void(const Request&, const std::shared_ptr<Exchange>&)>;

/// Whether only this machine reaches it, however it is spelt. Throws Error for what is no address.
bool is_loopback(const std::string& address);

class Server {
 public:
  /// Listens. Throws Error when the address cannot be had (in use, not of this machine, no right to it) or the
  /// certificate or key cannot be read.
  Server(const ServerOptions& options, Handler handler);
  ~Server();

  uint16_t port() const;
  /// "http://127.0.0.1:8080"
  std::string url() const;

  /// Serves until drain() or stop(), then returns; called once.
  void run();
  /// From any thread, also a signal handler's: takes no more connections or requests, lets running answers end within
  /// the time, then cuts what is left.
  void drain(std::chrono::milliseconds limit);
  void stop() { drain(std::chrono::milliseconds(0)); }

  ServerStats stats() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace puna::http
