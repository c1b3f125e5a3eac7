// The bytes before an answer's body, and the answers that the server gives by itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "http/exchange.h"

namespace puna::http {

/// {"type":"error","error":{"message":...,"type":...,"param":null,"code":null}}, which clients of OpenAI and of
/// Anthropic both understand; the inner type is server_error from 500 on, before that invalid_request_error. 503 has
/// Retry-After.
Reply error_reply(int status, std::string_view message);

struct Framing {
  bool chunked = false;
  bool keep_alive = true;
  bool http_1_0 = false;            // of the request
  std::optional<int64_t> length{};  // of the body, when known
};

/// Status line and header with the empty line. A name or value that would break out of its line is left out.
std::string reply_head(const Reply& reply, const Framing& framing);

/// 1xx, 204 and 304 have no body.
bool has_body(int status);

}  // namespace puna::http
