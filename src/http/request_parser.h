// The bytes of one request to a Request (RFC 9112); knows no sockets and no time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

#include "http/exchange.h"

namespace puna::http {

/// A request that is answered by the server itself, after which the connection is closed.
class Refusal : public std::runtime_error {
 public:
  Refusal(int status, const std::string& message) : std::runtime_error(message), status_(status) {}
  int status() const { return status_; }

 private:
  int status_;
};

class RequestParser {
 public:
  RequestParser(int64_t header_bytes, int64_t body_bytes);
  ~RequestParser();

  /// Takes what it can from the front of `bytes` and returns how much. What it leaves belongs to the next request once
  /// done(), and else comes again with more behind it. It stops at the end of the header, before the body. Throws
  /// Refusal: 400, 413 (from the announced length, or when a chunked body is too long), 417, 431, 501, 505.
  size_t put(std::string_view bytes);

  bool header_done() const;
  bool done() const;

  // From the end of the header on.

  /// Without its body.
  const Request& head() const;
  /// As if the body were empty; what follows on the connection is not to be read as requests.
  void drop_body();

  /// The client waits for "100 Continue" before it sends the body.
  bool expects_continue() const;
  /// 0 when the header does not say it.
  int64_t announced_body_bytes() const;
  bool keep_alive() const;
  bool is_http_1_0() const;
  bool is_head() const;

  int64_t body_bytes() const;  // that have come
  /// Its memory is free; no more is put.
  void discard_body();
  /// Once, when done(). `peer` is left empty.
  Request take();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace puna::http
