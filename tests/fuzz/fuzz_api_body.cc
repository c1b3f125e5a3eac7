// Any bytes as the body of a request, JSON or a form with files: messages and tools, or an error.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "server/api_error.h"
#include "server/messages.h"
#include "server/multipart.h"
#include "server/tools.h"

namespace puna::server {
namespace {

/// Images are numbered in the order of their parts.
void check(const Conversation& conversation) {
  size_t images = 0;
  for (const text::Message& message : conversation.messages)
    for (const text::Part& part : message.parts)
      if (const auto* image = std::get_if<text::ImagePart>(&part); image && image->image != images++) std::abort();
  if (images != conversation.images.size()) std::abort();
}

template <typename Read>
void attempt(const Read& read) {
  try {
    read();
  } catch (const ApiError& error) {
    if (error.status < 400 || error.status >= 500 || !error.json().is_object()) std::abort();
  } catch (const Error&) {
  }
}

void read_json(std::string_view text) {
  const OrderedJson body = parse_ordered_json(text, "body");
  attempt([&] {
    Fields fields(body);
    const OrderedJson* messages = fields.find("messages");
    if (!messages) return;
    Conversation conversation = read_messages(*messages, "messages");
    check(conversation);
    add_uploads(conversation, {"a", "b"});
    check(conversation);
  });
  attempt([&] {
    Fields fields(body);
    read_tools(fields);
    fields.unknown();
  });
}

}  // namespace
}  // namespace puna::server

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace puna::server;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  attempt([&] { read_json(text); });
  attempt([&] {
    size_t bytes = 0;
    const auto parts = read_multipart("multipart/form-data; boundary=B", text);
    for (const auto& [name, part] : parts) bytes += part.size();
    if (bytes > size) std::abort();
    const auto request = parts.find("request");
    if (request != parts.end()) read_json(request->second);
  });
  attempt([&] { read_multipart(text, "--B\r\n\r\n\r\n--B--"); });
  return 0;
}
