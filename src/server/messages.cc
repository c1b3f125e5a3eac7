#include "server/messages.h"

#include <fmt/format.h>

#include "base/error.h"
#include "io/base64.h"
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
  const OrderedJson* arguments = fields.find("arguments");
  if (!arguments) return result;
  const std::string at = fields.path_of("arguments");
  if (arguments->is_string()) {
    const auto& written = arguments->get_ref<const std::string&>();
    if (!written.empty()) result.arguments = parse_ordered_json(written, at);
  } else {
    result.arguments = *arguments;
  }
  if (!result.arguments.is_object()) wrong_field(at, *arguments, "an object, or one as a string");
  return result;
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

}  // namespace

Conversation read_messages(const OrderedJson& messages, const std::string& path) {
  if (!messages.is_array() || messages.empty() || messages.size() > kMostMessages)
    wrong_field(path, messages, fmt::format("an array of 1 to {} messages", kMostMessages));
  Conversation conversation;
  for (size_t i = 0; i < messages.size(); ++i) {
    conversation.messages.push_back(read_message(messages[i], fmt::format("{}[{}]", path, i), conversation.images));
  }
  return conversation;
}

std::string image_bytes(const ImageSource& source) {
  const std::string_view url = source.url;
  const std::string shown(url.substr(0, 40));
  if (!url.starts_with("data:"))
    wrong_field(source.field, OrderedJson(shown), "a data URL such as data:image/png;base64,...; nothing is fetched");
  const size_t comma = url.find(',');
  const std::string_view head = url.substr(0, comma == std::string_view::npos ? 0 : comma);
  if (!head.ends_with(";base64")) wrong_field(source.field, OrderedJson(shown), "a data URL in base64");
  auto bytes = io::decode_base64(url.substr(comma + 1));
  if (!bytes) wrong_field(source.field, OrderedJson(shown), "valid base64 after the comma");
  return std::move(*bytes);
}

}  // namespace puna::server
