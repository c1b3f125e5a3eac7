// Messages of the OpenAI chat interface as the model's chat format takes them.
#pragma once

#include <string>
#include <vector>

#include "server/fields.h"
#include "text/chat.h"

namespace puna::server {

/// An image of a request, not yet decoded.
struct ImageSource {
  std::string url;    // "data:image/png;base64,...", "file:...", "https://...", "attachment:NAME"
  std::string field;  // for errors
};

struct Conversation {
  std::vector<text::Message> messages;
  std::vector<ImageSource> images;  // in the order of their parts
};

/// An array of messages: roles system, developer, user, assistant, tool (and function); content a string, an array of
/// text and image_url parts, or null beside tool calls. Throws ApiError naming the message and field.
Conversation read_messages(const OrderedJson& messages, const std::string& path);
text::Message read_message(const OrderedJson& json, const std::string& path, std::vector<ImageSource>& images);
/// An object, or one as a string; of a call of a tool.
OrderedJson read_arguments(const OrderedJson& json, const std::string& path);

/// Puts pictures that no part refers to ("attachment:NAME") before what the user said last.
void add_uploads(Conversation& conversation, const std::vector<std::string>& names);

/// System messages that the conversation begins with become one: the chat format has one.
void join_system_messages(std::vector<text::Message>& messages);

}  // namespace puna::server
