#include "server/api_error.h"

#include "base/error.h"
#include "base/log.h"

namespace puna::server {
namespace {

const char* type_of(int status) {
  if (status == 401) return "authentication_error";
  if (status == 403) return "permission_error";
  if (status == 404) return "not_found_error";
  if (status == 429) return "rate_limit_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

}  // namespace

OrderedJson ApiError::json(ErrorForm form) const {
  if (form == ErrorForm::kAnthropic) {
    const char* type = status == 413 ? "request_too_large" : status >= 500 ? "api_error" : type_of(status);
    return {{"type", "error"}, {"error", {{"type", status == 503 ? "overloaded_error" : type}, {"message", what()}}}};
  }
  return {{"error",
           {{"message", what()},
            {"type", type_of(status)},
            {"param", field.empty() ? OrderedJson(nullptr) : OrderedJson(field)},
            {"code", code.empty() ? OrderedJson(nullptr) : OrderedJson(code)}}}};
}

http::Reply ApiError::reply(ErrorForm form) const {
  http::Reply reply;
  reply.status = status;
  reply.body = json(form).dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  if (status == 429 || status == 503) reply.headers.emplace_back("Retry-After", std::to_string(retry_seconds));
  if (status == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  return reply;
}

ApiError out_of_time(std::string_view before) {
  return ApiError(503, "The request's time ended before " + std::string(before) + ".", {}, "deadline");
}

ApiError api_error_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const ApiError& known) {
    return known;
  } catch (const Error& wrong) {
    return ApiError(400, wrong.what());
  } catch (const std::exception& bug) {
    spdlog::error("a request failed: {}", bug.what());
    return ApiError(500, "The server made a mistake; its log says which.");
  }
}

ApiError api_error_of_run(const std::exception_ptr& error) {
  ApiError result = api_error_of(error);
  const std::string_view message = result.what();
  if (result.status == 400 && !message.starts_with("[grammar") && !message.starts_with("[sampling")) {
    spdlog::error("a request failed while it ran: {}", result.what());
    result.status = 500;
  }
  return result;
}

}  // namespace puna::server
