// Requests of /v1/messages, Anthropic's interface.
#include <fmt/format.h>

#include "server/api_error.h"
#include "server/call_fields.h"

namespace puna::server {
namespace {

constexpr size_t kMostMessages = 10'000;

ImageSource read_image(Fields& block) {
  const OrderedJson* given = block.find("source");
  if (!given) throw ApiError(400, fmt::format("'{}' is missing", block.path_of("source")), block.path_of("source"));
  Fields source(*given, block.path_of("source"));
  const std::string type = source.required_text("type");
  if (type == "url") return {source.required_text("url"), source.path_of("url")};
  if (type != "base64") wrong_field(source.path_of("type"), OrderedJson(type), "base64 or url");
  return {fmt::format("data:{};base64,{}", source.required_text("media_type"), source.required_text("data")),
          source.path_of("data")};
}

class Reader {
 public:
  explicit Reader(Conversation& conversation) : conversation_(conversation) {}

  void add(const OrderedJson& json, const std::string& path) {
    Fields fields(json, path);
    const std::string role = fields.required_text("role");
    if (role != "user" && role != "assistant" && role != "system")
      wrong_field(fields.path_of("role"), OrderedJson(role), "user or assistant");
    message_ = {role == "user"        ? text::Role::kUser
                : role == "assistant" ? text::Role::kAssistant
                                      : text::Role::kSystem,
                {},
                {},
                false};
    add_content(fields, "content");
    message_.end_of_message = !message_.tool_calls.empty();
    // Results of tools alone leave nothing to say.
    if (!message_.parts.empty() || !message_.tool_calls.empty() || !had_result_)
      conversation_.messages.push_back(std::move(message_));
  }

  void add_system(const OrderedJson& system) {
    message_ = {text::Role::kSystem, {}, {}, false};
    const OrderedJson wrapped = {{"system", system}};
    Fields fields(wrapped);
    add_content(fields, "system");
    conversation_.messages.push_back(std::move(message_));
  }

 private:
  void add_content(Fields& fields, const std::string& name) {
    had_result_ = false;
    const OrderedJson* content = fields.find(name);
    const std::string path = fields.path_of(name);
    if (!content) throw ApiError(400, fmt::format("'{}' is missing", path), path);
    if (content->is_string()) {
      message_.parts.emplace_back(text::TextPart{content->get<std::string>()});
      return;
    }
    if (!content->is_array()) wrong_field(path, *content, "a string or an array of blocks");
    for (size_t i = 0; i < content->size(); ++i) add_block((*content)[i], fmt::format("{}[{}]", path, i));
  }

  void add_block(const OrderedJson& json, const std::string& path) {
    Fields block(json, path);
    const std::string type = block.required_text("type");
    if (type == "text") {
      message_.parts.emplace_back(text::TextPart{block.required_text("text")});
    } else if (type == "image") {
      add_image(block);
    } else if (type == "tool_use" && message_.role == text::Role::kAssistant) {
      text::ToolCall call{block.required_text("name"), OrderedJson::object()};
      if (const OrderedJson* input = block.find("input"))
        call.arguments = read_arguments(*input, block.path_of("input"));
      message_.tool_calls.push_back(std::move(call));
    } else if (type == "tool_result" && message_.role == text::Role::kUser) {
      add_result(block);
    } else if (type != "thinking" && type != "redacted_thinking") {
      wrong_field(block.path_of("type"), OrderedJson(type),
                  "text, image, tool_use of the assistant, tool_result of the user");
    }
  }

  void add_image(Fields& block) {
    conversation_.images.push_back(read_image(block));
    message_.parts.emplace_back(text::ImagePart{conversation_.images.size() - 1});
  }

  /// A message of the tool, before what the user says; its pictures become the user's.
  void add_result(Fields& block) {
    had_result_ = true;
    text::Message result{text::Role::kTool, {}, {}, false};
    const OrderedJson* content = block.find("content");
    const std::string path = block.path_of("content");
    if (content && content->is_string()) {
      result.parts.emplace_back(text::TextPart{content->get<std::string>()});
    } else if (content && content->is_array()) {
      for (size_t i = 0; i < content->size(); ++i) {
        Fields part((*content)[i], fmt::format("{}[{}]", path, i));
        const std::string type = part.required_text("type");
        if (type == "image") {
          add_image(part);
        } else if (type == "text") {
          result.parts.emplace_back(text::TextPart{part.required_text("text")});
        } else {
          wrong_field(part.path_of("type"), OrderedJson(type), "text or image");
        }
      }
    } else if (content) {
      wrong_field(path, *content, "a string or an array of blocks");
    }
    conversation_.messages.push_back(std::move(result));
  }

  Conversation& conversation_;
  text::Message message_;
  bool had_result_ = false;
};

/// Tools and the choice among them in the form of chat completions.
Tools read_named_tools(Fields& fields) {
  OrderedJson chat = OrderedJson::object();
  if (const OrderedJson* given = fields.find("tool_choice")) {
    Fields choice(*given, "tool_choice");
    const std::string type = choice.required_text("type");
    if (type == "tool") {
      chat["tool_choice"] = {{"type", "function"}, {"function", {{"name", choice.required_text("name")}}}};
    } else if (type == "any" || type == "auto" || type == "none") {
      chat["tool_choice"] = type == "any" ? "required" : type;
    } else {
      wrong_field("tool_choice.type", OrderedJson(type), "auto, any, tool or none");
    }
  }
  if (const OrderedJson* tools = fields.find("tools")) {
    if (!tools->is_array()) wrong_field("tools", *tools, "an array");
    chat["tools"] = OrderedJson::array();
    for (size_t i = 0; i < tools->size(); ++i) {
      Fields tool((*tools)[i], fmt::format("tools[{}]", i));
      if (const std::string type = tool.text("type").value_or("custom"); type != "custom")
        wrong_field(tool.path_of("type"), OrderedJson(type), "custom: tools of the server's own there are none");
      OrderedJson function = {{"name", tool.required_text("name")}};
      if (const auto text = tool.text("description")) function["description"] = *text;
      if (const OrderedJson* schema = tool.find("input_schema")) function["parameters"] = *schema;
      chat["tools"].push_back({{"type", "function"}, {"function", std::move(function)}});
    }
  }
  Fields of_chat(chat);
  return read_tools(of_chat);
}

}  // namespace

CompletionCall read_messages_call(const OrderedJson& body, Service::Place& place, bool counting) {
  Service& service = place.service();
  Fields fields(body);
  CompletionCall call;
  call.form = CallForm::kMessages;
  engine::Request request = read_common(fields, service, place, call);
  if (!counting) fields.required("max_tokens");
  set_tokens(fields, {"max_tokens"}, 1, service, request);
  read_stop_strings(fields, "stop_sequences", request);
  fields.ignore({"thinking", "output_config", "context_management", "inference_geo"});
  Tools tools = read_named_tools(fields);
  Conversation conversation;
  Reader reader(conversation);
  if (const OrderedJson* system = fields.find("system"); system && !system->empty()) reader.add_system(*system);
  const OrderedJson& messages = fields.required("messages");
  if (!messages.is_array() || messages.empty() || messages.size() > kMostMessages)
    wrong_field("messages", messages, fmt::format("an array of 1 to {} messages", kMostMessages));
  for (size_t i = 0; i < messages.size(); ++i) reader.add(messages[i], fmt::format("messages[{}]", i));
  join_system_messages(conversation.messages);
  set_prompt(std::move(conversation), std::move(tools), std::move(request), call, place);
  call.unknown = fields.unknown();
  return call;
}

}  // namespace puna::server
