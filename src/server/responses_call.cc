// Requests of /v1/responses, of which nothing is kept afterwards.
#include <fmt/format.h>

#include "server/api_error.h"
#include "server/call_fields.h"
#include "server/result_json.h"

namespace puna::server {
namespace {

constexpr size_t kMostItems = 10'000;

[[noreturn]] void refuse_state(const std::string& field) {
  throw ApiError(
      400, fmt::format("'{}' is not possible: nothing is kept between requests; send the whole conversation", field),
      field, "unsupported_parameter");
}

text::Message read_call(Fields& item) {
  text::Message message{text::Role::kAssistant, {}, {}, true};
  text::ToolCall call{item.required_text("name"), OrderedJson::object()};
  if (const OrderedJson* arguments = item.find("arguments"))
    call.arguments = read_arguments(*arguments, item.path_of("arguments"));
  message.tool_calls.push_back(std::move(call));
  return message;
}

text::Message read_call_output(Fields& item, std::vector<ImageSource>& images) {
  const OrderedJson* output = item.find("output");
  if (!output) throw ApiError(400, fmt::format("'{}' is missing", item.path_of("output")), item.path_of("output"));
  // As the content of a tool's message.
  return read_message({{"role", "tool"}, {"content", *output}}, item.path_of("output"), images);
}

void add_item(const OrderedJson& json, const std::string& path, Conversation& conversation) {
  Fields item(json, path);
  const std::string type = item.text("type").value_or("message");
  auto& messages = conversation.messages;
  if (type == "message") {
    messages.push_back(read_message(json, path, conversation.images));
  } else if (type == "function_call_output") {
    messages.push_back(read_call_output(item, conversation.images));
  } else if (type == "function_call") {
    text::Message call = read_call(item);
    // Text and calls of one turn are items of their own.
    if (messages.empty() || messages.back().role != text::Role::kAssistant) return messages.push_back(std::move(call));
    messages.back().tool_calls.push_back(std::move(call.tool_calls.front()));
    messages.back().end_of_message = true;
  } else if (type == "item_reference") {
    refuse_state(item.path_of("type"));
  } else if (type != "reasoning") {
    wrong_field(item.path_of("type"), OrderedJson(type), "message, function_call or function_call_output");
  }
}

Conversation read_input(Fields& fields) {
  Conversation conversation;
  if (const auto instructions = fields.text("instructions"); instructions && !instructions->empty())
    conversation.messages.push_back({text::Role::kSystem, {text::TextPart{*instructions}}, {}, false});
  const OrderedJson& input = fields.required("input");
  if (input.is_string()) {
    conversation.messages.push_back({text::Role::kUser, {text::TextPart{input.get<std::string>()}}, {}, false});
    return conversation;
  }
  if (!input.is_array() || input.empty() || input.size() > kMostItems)
    wrong_field("input", input, fmt::format("a string or an array of 1 to {} items", kMostItems));
  for (size_t i = 0; i < input.size(); ++i) add_item(input[i], fmt::format("input[{}]", i), conversation);
  join_system_messages(conversation.messages);
  return conversation;
}

/// Tools in the form of chat completions: {"type": "function", "function": {...}}.
Tools read_flat_tools(Fields& fields) {
  OrderedJson chat = OrderedJson::object();
  if (const OrderedJson* choice = fields.find("tool_choice")) chat["tool_choice"] = *choice;
  if (const OrderedJson* tools = fields.find("tools")) {
    if (!tools->is_array()) wrong_field("tools", *tools, "an array");
    chat["tools"] = OrderedJson::array();
    for (size_t i = 0; i < tools->size(); ++i) {
      Fields tool((*tools)[i], fmt::format("tools[{}]", i));
      if (const std::string type = tool.required_text("type"); type != "function")
        wrong_field(tool.path_of("type"), OrderedJson(type), "function: tools of the server's own there are none");
      OrderedJson function = (*tools)[i];
      function.erase("type");
      function.erase("strict");
      chat["tools"].push_back({{"type", "function"}, {"function", std::move(function)}});
    }
  }
  Fields of_chat(chat);
  return read_tools(of_chat);
}

/// `text.format.type`, where it was read as one.
std::string format_type(const OrderedJson& body) {
  const auto text = body.find("text");
  if (text == body.end() || !text->is_object() || !text->contains("format")) return "text";
  const OrderedJson& format = (*text)["format"];
  return format.is_object() && format.contains("type") && format["type"].is_string() ? format["type"].get<std::string>()
                                                                                     : "text";
}

/// What the answer says of the request. It stays as long as the request runs: what is long is not said again.
OrderedJson echo(const OrderedJson& body, const engine::Request& request) {
  constexpr size_t kMostBytes = 64 << 10;  // of one field, as JSON
  const auto given = [&](const char* name, OrderedJson absent) {
    const auto at = body.find(name);
    if (at != body.end() && !at->is_null() && dump(*at).size() <= kMostBytes) absent = *at;
    return absent;
  };
  return {{"instructions", given("instructions", nullptr)},
          {"max_output_tokens", given("max_output_tokens", nullptr)},
          {"metadata", given("metadata", OrderedJson::object())},
          {"parallel_tool_calls", given("parallel_tool_calls", true)},
          {"previous_response_id", nullptr},
          {"reasoning", {{"effort", nullptr}, {"summary", nullptr}}},
          {"store", false},
          {"temperature", request.sampling.temperature},
          {"text", given("text", {{"format", {{"type", format_type(body)}}}})},
          {"tool_choice", given("tool_choice", "auto")},
          {"tools", given("tools", OrderedJson::array())},
          {"top_p", request.sampling.top_p},
          {"truncation", "disabled"},
          {"user", given("user", nullptr)}};
}

}  // namespace

CompletionCall read_responses_call(const OrderedJson& body, Service::Place& place) {
  Service& service = place.service();
  Fields fields(body);
  CompletionCall call;
  call.form = CallForm::kResponses;
  engine::Request request = read_common(fields, service, place, call);
  set_tokens(fields, {"max_output_tokens"}, 1, service, request);
  for (const char* name : {"previous_response_id", "conversation", "prompt"})
    if (fields.find(name)) refuse_state(name);
  if (fields.boolean("background").value_or(false)) refuse_state("background");
  if (const OrderedJson* text = fields.find("text")) {
    Fields of_text(*text, "text");
    if (const OrderedJson* format = of_text.find("format"))
      request.grammar = read_format(*format, "text.format", true, place);
  }
  if (const auto top = fields.integer("top_logprobs", 0, kMostAlternatives))
    call.top_logprobs = request.sampling.logprobs = static_cast<int>(*top);
  for (const std::string& wanted : fields.texts("include"))
    if (wanted == "message.output_text.logprobs" && call.top_logprobs < 0)
      call.top_logprobs = request.sampling.logprobs = 0;
  fields.ignore({"truncation", "prompt_cache_retention"});
  Tools tools = read_flat_tools(fields);
  Conversation conversation = read_input(fields);
  call.echoed = echo(body, request);
  set_prompt(std::move(conversation), std::move(tools), std::move(request), call, place);
  call.unknown = fields.unknown();
  return call;
}

}  // namespace puna::server
