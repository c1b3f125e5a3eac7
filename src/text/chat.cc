#include "text/chat.h"

#include <algorithm>

#include "base/error.h"
#include "text/python_json.h"
#include "text/unicode_classes.h"
#include "text/utf8.h"

namespace puna::text {
namespace {

constexpr const char* kWhere = "chat";

TokenId required_special(const Tokenizer& tokenizer, std::string_view name) {
  const auto id = tokenizer.special(name);
  if (!id) fail(kWhere, "the tokenizer has no special token '{}'; is it that of a Llama 4 model?", name);
  return *id;
}

/// Python's str.strip(). Invalid bytes are kept.
std::string_view strip(std::string_view text) {
  size_t begin = text.size(), end = 0;
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = read_utf8(text.substr(i));
    const size_t next = i + static_cast<size_t>(c.length);
    if (!c.valid || !is_python_space(c.code_point, char_classes())) {
      begin = std::min(begin, i);
      end = next;
    }
    i = next;
  }
  return begin < end ? text.substr(begin, end - begin) : std::string_view();
}

/// The text of a message that may hold no image.
std::string text_only(const Message& message, std::string_view what) {
  std::string text;
  for (const Part& part : message.parts) {
    if (!std::holds_alternative<TextPart>(part)) fail(kWhere, "an image cannot be part of {}", what);
    text += std::get<TextPart>(part).text;
  }
  return text;
}

/// Collects the ids of a prompt. Text is encoded when something else follows, so adjacent texts are one.
class PromptBuilder {
 public:
  PromptBuilder(const Tokenizer& tokenizer, const std::vector<ImageTiles>& images)
      : tokenizer_(tokenizer), images_(images) {
    special("<|begin_of_text|>");
  }

  void special(std::string_view name) {
    flush();
    ids_.push_back(required_special(tokenizer_, name));
  }

  void text(std::string_view text) { pending_ += text; }

  /// Encodes the text so far, so that what follows does not join it.
  void flush() {
    const auto ids = tokenizer_.encode(pending_);
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    pending_.clear();
  }

  void header(std::string_view role) {
    special("<|header_start|>");
    text(role);
    special("<|header_end|>");
    text("\n\n");
  }

  void image(size_t index) {
    if (index != next_image_ || index >= images_.size())
      fail(kWhere, "the messages refer to image {} where image {} of {} is due; images go in order, each once", index,
           next_image_, images_.size());
    ++next_image_;
    flush();
    const auto ids = image_tokens(tokenizer_, images_[index]);
    ids_.insert(ids_.end(), ids.begin(), ids.end());
  }

  void part(const Part& part) {
    if (const auto* text_part = std::get_if<TextPart>(&part)) {
      text(text_part->text);
    } else {
      image(std::get<ImagePart>(part).image);
    }
  }

  std::vector<TokenId> take() {
    flush();
    if (next_image_ != images_.size())
      fail(kWhere, "the messages refer to {} images, but {} are given", next_image_, images_.size());
    return std::move(ids_);
  }

 private:
  const Tokenizer& tokenizer_;
  const std::vector<ImageTiles>& images_;
  std::vector<TokenId> ids_;
  std::string pending_;
  size_t next_image_ = 0;
};

const OrderedJson& checked_arguments(const ToolCall& call) {
  if (!call.arguments.is_object()) fail(kWhere, "the arguments of the tool call '{}' are not a JSON object", call.name);
  return call.arguments;
}

// Meta's form (llama_models' ChatFormat): every part is encoded by itself.

std::string python_list_value(const OrderedJson& value) {
  if (value.is_string()) return fmt::format("\"{}\"", value.get_ref<const std::string&>());
  if (!value.is_structured()) return python_str(value);
  std::string out;
  for (const auto& item : value.items()) {
    if (!out.empty()) out += ", ";
    if (value.is_object()) out.append(item.key()).append("=");
    out += python_list_value(item.value());
  }
  return value.is_object() ? fmt::format("{{{}}}", out) : fmt::format("[{}]", out);
}

/// The argument that a built-in tool's call consists of.
std::string builtin_argument(const ToolCall& call, const char* key) {
  const auto entry = call.arguments.find(key);
  if (entry == call.arguments.end()) fail(kWhere, "the tool call '{}' has no argument '{}'", call.name, key);
  return entry->is_string() ? entry->get<std::string>() : python_str(*entry);
}

std::string meta_tool_call(const ToolCall& call, ToolCallStyle style) {
  const OrderedJson& arguments = checked_arguments(call);
  if (call.name == "brave_search" || call.name == "wolfram_alpha" || call.name == "photogen")
    return fmt::format("{}.call(query=\"{}\")", call.name, builtin_argument(call, "query"));
  if (call.name == "code_interpreter") return builtin_argument(call, "code");
  if (style == ToolCallStyle::kFunctionTag)
    return fmt::format("<function={}>{}</function>", call.name, python_json(arguments));
  if (style == ToolCallStyle::kPythonList) {
    const std::string braced = python_list_value(arguments);
    return fmt::format("[{}({})]", call.name, std::string_view(braced).substr(1, braced.size() - 2));
  }
  return python_json({{"type", "function"}, {"name", call.name}, {"parameters", arguments}});
}

const char* role_name(Role role) {
  switch (role) {
    case Role::kSystem:
      return "system";
    case Role::kUser:
      return "user";
    case Role::kAssistant:
      return "assistant";
    case Role::kTool:
      return "ipython";
  }
  return "";
}

void add_meta_message(PromptBuilder& prompt, const Message& message, ToolCallStyle style) {
  prompt.header(role_name(message.role));
  prompt.flush();
  for (const Part& part : message.parts) {
    prompt.part(part);
    prompt.flush();
  }
  for (const ToolCall& call : message.tool_calls) {
    prompt.text(meta_tool_call(call, style));
    prompt.flush();
  }
  const bool expects_more = message.role == Role::kTool || message.end_of_message || !message.tool_calls.empty();
  prompt.special(expects_more ? "<|eom|>" : "<|eot|>");
}

// The Hugging Face template: text runs on between special tokens.

constexpr std::string_view kAnswerFormat =
    "Respond in the format {\"name\": function name, \"parameters\": dictionary of argument name and its value}."
    "Do not use variables.\n\n";

void add_tools(PromptBuilder& prompt, const OrderedJson& tools) {
  prompt.text(kAnswerFormat);
  for (const auto& tool : tools) {
    prompt.text(python_json(tool, {.ensure_ascii = false, .indent = 4}));
    prompt.text("\n\n");
  }
}

void add_hf_system(PromptBuilder& prompt, const Message& message, const ChatOptions& options) {
  prompt.header("system");
  if (!options.tools.is_null()) prompt.text("Environment: ipython\n");
  if (!options.tools.is_null() && !options.tools_in_user_message) {
    prompt.text(
        "You have access to the following functions. To call a function, please respond with JSON for a function "
        "call.");
    add_tools(prompt, options.tools);
  }
  prompt.text(strip(text_only(message, "the system message in the Hugging Face form")));
  prompt.special("<|eot|>");
}

/// The first user message with the tools before it; its text is stripped at both ends.
void add_hf_tools_message(PromptBuilder& prompt, Message message, const OrderedJson& tools) {
  prompt.header("user");
  prompt.text(
      "Given the following functions, please respond with a JSON for a function call with its proper arguments that "
      "best answers the given prompt.\n\n");
  add_tools(prompt, tools);
  auto& parts = message.parts;
  for (size_t i = 0; i < parts.size(); ++i) {
    auto* part = std::get_if<TextPart>(&parts[i]);
    if (!part) continue;
    const std::string padded = fmt::format("{}{}{}", i == 0 ? "" : "x", part->text, i + 1 == parts.size() ? "" : "x");
    std::string_view kept = strip(padded);
    if (i > 0) kept.remove_prefix(1);
    if (i + 1 < parts.size()) kept.remove_suffix(1);
    part->text = std::string(kept);
  }
  for (const Part& part : parts) prompt.part(part);
  prompt.special("<|eot|>");
}

void add_hf_message(PromptBuilder& prompt, const Message& message) {
  prompt.header(role_name(message.role));
  if (message.role == Role::kTool) {
    const std::string text = text_only(message, "a tool result in the Hugging Face form");
    prompt.text(python_json(replace_invalid_utf8(text), {.ensure_ascii = false}));
  } else if (message.tool_calls.empty()) {
    for (const Part& part : message.parts) prompt.part(part);
  } else {
    prompt.special("<|python_start|>");
    for (const Part& part : message.parts) prompt.part(part);
    prompt.special("<|python_end|>");
    for (const ToolCall& call : message.tool_calls) {
      const std::string arguments = python_json(checked_arguments(call), {.ensure_ascii = false});
      prompt.text(fmt::format("{{\"name\": \"{}\", \"parameters\": {}}}", call.name, arguments));
    }
  }
  prompt.special("<|eot|>");
}

void add_hf_messages(PromptBuilder& prompt, const std::vector<Message>& messages, const ChatOptions& options) {
  size_t next = 0;
  const bool has_system = !messages.empty() && messages[0].role == Role::kSystem;
  if (has_system) add_hf_system(prompt, messages[next++], options);
  if (!options.tools.is_null()) {
    if (!options.tools.is_array()) fail(kWhere, "the tools are not a JSON array");
    if (!options.tools_in_user_message && !has_system)
      fail(kWhere, "tools outside the user message need a system message; add one, or put them in the user message");
    if (options.tools_in_user_message) {
      if (next == messages.size() || messages[next].role != Role::kUser)
        fail(kWhere, "tools go into the first user message, and the conversation does not begin with one");
      add_hf_tools_message(prompt, messages[next++], options.tools);
    }
  }
  for (; next < messages.size(); ++next) add_hf_message(prompt, messages[next]);
}

}  // namespace

std::vector<TokenId> encode_chat(const Tokenizer& tokenizer, const std::vector<Message>& messages,
                                 const std::vector<ImageTiles>& images, const ChatOptions& options) {
  for (const Message& message : messages) {
    if (!message.tool_calls.empty() && message.role != Role::kAssistant)
      fail(kWhere, "a message from '{}' has tool calls; only the assistant calls tools", role_name(message.role));
  }
  PromptBuilder prompt(tokenizer, images);
  if (options.form == ChatForm::kMeta) {
    if (!options.tools.is_null())
      fail(kWhere, "Meta's form has no place for tools; describe them in the system message, or use the other form");
    for (const Message& message : messages) add_meta_message(prompt, message, options.tool_call_style);
  } else {
    add_hf_messages(prompt, messages, options);
  }
  if (options.add_generation_prompt) prompt.header("assistant");
  return prompt.take();
}

std::vector<TokenId> image_tokens(const Tokenizer& tokenizer, const ImageTiles& tiles) {
  PUNA_CHECK(tiles.rows > 0 && tiles.columns > 0 && tiles.tokens_per_tile > 0, "{} x {} tiles of {} tokens", tiles.rows,
             tiles.columns, tiles.tokens_per_tile);
  std::vector<TokenId> ids = {required_special(tokenizer, "<|image_start|>")};
  const TokenId patch = required_special(tokenizer, "<|patch|>");
  const auto add_tile = [&] { ids.insert(ids.end(), static_cast<size_t>(tiles.tokens_per_tile), patch); };
  if (tiles.num_tiles() > 1) {
    const TokenId tile_x = required_special(tokenizer, "<|tile_x_separator|>");
    const TokenId tile_y = required_special(tokenizer, "<|tile_y_separator|>");
    for (int row = 0; row < tiles.rows; ++row) {
      for (int column = 0; column < tiles.columns; ++column) {
        if (column > 0) ids.push_back(tile_x);
        add_tile();
      }
      ids.push_back(tile_y);
    }
  }
  ids.push_back(required_special(tokenizer, "<|image|>"));
  add_tile();
  ids.push_back(required_special(tokenizer, "<|image_end|>"));
  return ids;
}

std::vector<TokenId> stop_tokens(const Tokenizer& tokenizer) {
  std::vector<TokenId> ids;
  for (const char* name : {"<|end_of_text|>", "<|eom|>", "<|eot|>"}) {
    if (const auto id = tokenizer.special(name)) ids.push_back(*id);
  }
  return ids;
}

}  // namespace puna::text
