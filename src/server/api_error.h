// src/server: the OpenAI-compatible interface over the engine: what requests say, what answers look like.
// Connections are src/http; which token comes next is src/engine.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>

#include "base/json.h"
#include "http/exchange.h"

namespace puna::server {

/// Whose interface an error is written for.
enum class ErrorForm { kOpenAi, kAnthropic };

/// A request that cannot be answered: the status, and the error object of the OpenAI interface.
class ApiError : public std::runtime_error {
 public:
  ApiError(int status, const std::string& message, std::string field = {}, std::string code = {})
      : std::runtime_error(message), status(status), field(std::move(field)), code(std::move(code)) {}

  int status;
  std::string field;  // of the request, such as "messages[0].content"; "": none
  std::string code;   // such as "context_length_exceeded"; "": none
  int retry_seconds = 1;

  /// {"error": {"message", "type", "param", "code"}}, or {"type": "error", "error": {"type", "message"}}
  OrderedJson json(ErrorForm form = ErrorForm::kOpenAi) const;
  /// With Retry-After where the status asks for it.
  http::Reply reply(ErrorForm form = ErrorForm::kOpenAi) const;
};

/// 503: "The request's time ended before ...".
ApiError out_of_time(std::string_view before);
/// What was thrown, as an ApiError: an Error is a wrong request (400), all else is our fault (500) and logged.
ApiError api_error_of(const std::exception_ptr& error);
/// The same of what was thrown while an accepted request ran: our fault, but for a grammar or a logit
/// bias that cannot be followed.
ApiError api_error_of_run(const std::exception_ptr& error);

}  // namespace puna::server
