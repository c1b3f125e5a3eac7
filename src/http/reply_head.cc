#include "http/reply_head.h"

#include <fmt/chrono.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <ctime>

#include "base/json.h"

namespace puna::http {
namespace {

std::string_view reason(int status) {
  static const std::map<int, std::string_view> reasons = {
      {100, "Continue"},
      {200, "OK"},
      {201, "Created"},
      {202, "Accepted"},
      {204, "No Content"},
      {206, "Partial Content"},
      {301, "Moved Permanently"},
      {302, "Found"},
      {303, "See Other"},
      {304, "Not Modified"},
      {307, "Temporary Redirect"},
      {308, "Permanent Redirect"},
      {400, "Bad Request"},
      {401, "Unauthorized"},
      {403, "Forbidden"},
      {404, "Not Found"},
      {405, "Method Not Allowed"},
      {406, "Not Acceptable"},
      {408, "Request Timeout"},
      {409, "Conflict"},
      {411, "Length Required"},
      {413, "Content Too Large"},
      {415, "Unsupported Media Type"},
      {417, "Expectation Failed"},
      {422, "Unprocessable Content"},
      {429, "Too Many Requests"},
      {431, "Request Header Fields Too Large"},
      {499, "Client Closed Request"},
      {500, "Internal Server Error"},
      {501, "Not Implemented"},
      {502, "Bad Gateway"},
      {503, "Service Unavailable"},
      {504, "Gateway Timeout"},
      {505, "HTTP Version Not Supported"},
  };
  const auto at = reasons.find(status);
  return at == reasons.end() ? std::string_view("Status") : at->second;
}

bool is_token(std::string_view name) {
  const auto is_token_char = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
  };
  return !name.empty() && std::all_of(name.begin(), name.end(), is_token_char);
}

void add_field(std::string& head, std::string_view name, std::string_view value) {
  if (!is_token(name) || value.find_first_of(std::string_view("\r\n\0", 3)) != std::string_view::npos) {
    spdlog::error("[http] an answer's header '{}' is left out: it would break out of its line", name);
    return;
  }
  head.append(name).append(": ").append(value).append("\r\n");
}

}  // namespace

bool has_body(int status) { return status >= 200 && status != 204 && status != 304; }

Reply error_reply(int status, std::string_view message) {
  Reply reply;
  reply.status = status;
  OrderedJson error;
  error["message"] = message;
  error["type"] = status >= 500 ? "server_error" : "invalid_request_error";
  error["param"] = nullptr;
  error["code"] = nullptr;
  reply.body = OrderedJson{{"type", "error"}, {"error", std::move(error)}}.dump(-1, ' ', false,
                                                                                OrderedJson::error_handler_t::replace);
  if (status == 503) reply.headers.emplace_back("Retry-After", "1");
  return reply;
}

std::string reply_head(const Reply& reply, const Framing& framing) {
  std::string head = fmt::format("HTTP/1.1 {} {}\r\n", reply.status, reason(reply.status));
  add_field(head, "Date", fmt::format("{:%a, %d %b %Y %H:%M:%S GMT}", fmt::gmtime(std::time(nullptr))));
  if (has_body(reply.status)) {
    if (!reply.content_type.empty()) add_field(head, "Content-Type", reply.content_type);
    if (framing.chunked)
      add_field(head, "Transfer-Encoding", "chunked");
    else if (framing.length)
      add_field(head, "Content-Length", std::to_string(*framing.length));
  }
  if (!framing.keep_alive)
    add_field(head, "Connection", "close");
  else if (framing.http_1_0)
    add_field(head, "Connection", "keep-alive");
  for (const auto& [name, value] : reply.headers) add_field(head, name, value);
  return head + "\r\n";
}

}  // namespace puna::http
