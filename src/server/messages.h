// Messages of the OpenAI chat interface as the model's chat format takes them.
#pragma once

#include <string>
#include <vector>

#include "server/fields.h"
#include "text/chat.h"

namespace puna::server {

/// An image of a request, not yet decoded.
struct ImageSource {
  std::string url;    // "data:image/png;base64,..."
  std::string field;  // for errors
};

struct Conversation {
  std::vector<text::Message> messages;
  std::vector<ImageSource> images;  // in the order of their parts
};

/// An array of messages: roles system, developer, user, assistant, tool (and function); content a string, an array of
/// text and image_url parts, or null beside tool calls. Throws ApiError naming the message and field.
Conversation read_messages(const OrderedJson& messages, const std::string& path);

/// The bytes of a data URL. Throws ApiError for any other URL: nothing is fetched.
std::string image_bytes(const ImageSource& source);

}  // namespace puna::server
