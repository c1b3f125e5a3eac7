#include "server/messages.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "server/api_error.h"

namespace puna::server {
namespace {

constexpr size_t kMostMessages = 10'000;

text::Role role_of(Fields& fields) {
  const std::string role = fields.required_text("role");
  if (role == "system" || role == "developer") return text::Role::kSystem;
  if (role == "user") return text::Role::kUser;
  if (role == "assistant") return text::Role::kAssistant;
  if (role == "tool" || role == "function") return text::Role::kTool;
  wrong_field(fields.path_of("role"), OrderedJson(role), "system, developer, user, assistant or tool");
}

text::Part read_part(const OrderedJson& json, const std::string& path, std::vector<ImageSource>& images) {
  Fields part(json, path);
  const std::string type = part.required_text("type");
  if (type == "text" || type == "input_text" || type == "output_text" || type == "refusal")
    return text::TextPart{part.required_text(type == "refusal" ? "refusal" : "text")};
  if (type != "image_url" && type != "input_image")
    wrong_field(part.path_of("type"), OrderedJson(type), "text or image_url");
  const OrderedJson* url = part.find("image_url");
  if (url && url->is_object()) {
    Fields object(*url, part.path_of("image_url"));
    images.push_back({object.required_text("url"), object.path_of("url")});
  } else {
    images.push_back({part.required_text("image_url"), part.path_of("image_url")});
  }
  return text::ImagePart{images.size() - 1};
}

text::ToolCall read_tool_call(const OrderedJson& json, const std::string& path) {
  Fields call(json, path);
  const OrderedJson* function = call.find("function");
  if (!function)
    throw ApiError(400, fmt::format("'{}' is missing", call.path_of("function")), call.path_of("function"));
  Fields fields(*function, call.path_of("function"));
  text::ToolCall result{fields.required_text("name"), OrderedJson::object()};
  if (const OrderedJson* arguments = fields.find("arguments"))
    result.arguments = read_arguments(*arguments, fields.path_of("arguments"));
  return result;
}

}  // namespace

OrderedJson read_arguments(const OrderedJson& json, const std::string& path) {
  OrderedJson arguments = json;
  if (json.is_string()) {
    const auto& written = json.get_ref<const std::string&>();
    try {
      arguments = written.empty() ? OrderedJson::object() : parse_ordered_json(written, path);
    } catch (const Error& error) {
      throw ApiError(400, error.what(), path);
    }
  }
  if (!arguments.is_object()) wrong_field(path, json, "an object, or one as a string");
  return arguments;
}

text::Message read_message(const OrderedJson& json, const std::string& path, std::vector<ImageSource>& images) {
  Fields fields(json, path);
  text::Message message;
  message.role = role_of(fields);
  const OrderedJson* content = fields.find("content");
  if (content && content->is_string()) {
    message.parts.emplace_back(text::TextPart{content->get<std::string>()});
  } else if (content && content->is_array()) {
    for (size_t i = 0; i < content->size(); ++i)
      message.parts.push_back(read_part((*content)[i], fmt::format("{}[{}]", fields.path_of("content"), i), images));
  } else if (content) {
    wrong_field(fields.path_of("content"), *content, "a string or an array of parts");
  }
  if (const OrderedJson* calls = fields.find("tool_calls")) {
    const std::string at = fields.path_of("tool_calls");
    if (message.role != text::Role::kAssistant)
      throw ApiError(400, fmt::format("'{}' is the assistant's alone", at), at);
    if (!calls->is_array()) wrong_field(at, *calls, "an array");
    for (size_t i = 0; i < calls->size(); ++i)
      message.tool_calls.push_back(read_tool_call((*calls)[i], fmt::format("{}[{}]", at, i)));
    message.end_of_message = !message.tool_calls.empty();
  }
  if (const auto refusal = fields.text("refusal"); !content && refusal)
    message.parts.emplace_back(text::TextPart{*refusal});
  if (!content && message.role != text::Role::kAssistant)
    throw ApiError(400, fmt::format("'{}' is missing", fields.path_of("content")), fields.path_of("content"));
  return message;
}

void join_system_messages(std::vector<text::Message>& messages) {
  const auto is_text = [](const text::Part& part) { return std::holds_alternative<text::TextPart>(part); };
  while (messages.size() > 1 && messages[0].role == text::Role::kSystem && messages[1].role == text::Role::kSystem) {
    auto &first = messages[0].parts, &second = messages[1].parts;
    if (!std::all_of(second.begin(), second.end(), is_text)) return;  // which the chat format refuses
    first.emplace_back(text::TextPart{"\n\n"});
    for (text::Part& part : second) first.push_back(std::move(part));
    messages.erase(messages.begin() + 1);
  }
}

void add_uploads(Conversation& conversation, const std::vector<std::string>& names) {
  auto& [messages, images] = conversation;
  std::vector<ImageSource> added;
  for (const std::string& name : names) {
    const auto refers = [&](const ImageSource& image) { return image.url == "attachment:" + name; };
    if (std::none_of(images.begin(), images.end(), refers)) added.push_back({"attachment:" + name, name});
  }
  const auto is_user = [](const text::Message& message) { return message.role == text::Role::kUser; };
  const auto last = std::find_if(messages.rbegin(), messages.rend(), is_user);
  if (added.empty()) return;
  if (last == messages.rend()) throw ApiError(400, "The pictures of the form need a message of the user", "messages");
  // Images are numbered in the order of their parts.
  size_t first = 0;
  for (auto message = messages.begin(); message != last.base() - 1; ++message)
    for (const text::Part& part : message->parts) first += std::holds_alternative<text::ImagePart>(part);
  for (auto message = last.base() - 1; message != messages.end(); ++message)
    for (text::Part& part : message->parts)
      if (auto* image = std::get_if<text::ImagePart>(&part)) image->image += added.size();
  std::vector<text::Part> parts;
  for (size_t i = 0; i < added.size(); ++i) parts.emplace_back(text::ImagePart{first + i});
  for (text::Part& part : last->parts) parts.push_back(std::move(part));
  last->parts = std::move(parts);
  images.insert(images.begin() + static_cast<std::ptrdiff_t>(first), added.begin(), added.end());
}

Conversation read_messages(const OrderedJson& messages, const std::string& path) {
  if (!messages.is_array() || messages.empty() || messages.size() > kMostMessages)
    wrong_field(path, messages, fmt::format("an array of 1 to {} messages", kMostMessages));
  Conversation conversation;
  for (size_t i = 0; i < messages.size(); ++i) {
    conversation.messages.push_back(read_message(messages[i], fmt::format("{}[{}]", path, i), conversation.images));
  }
  join_system_messages(conversation.messages);
  return conversation;
}

}  // namespace puna::server
