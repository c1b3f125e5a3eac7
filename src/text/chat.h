// The chat format (SPEC 8): messages to token ids, in Meta's form and in the Hugging Face template's.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "base/json.h"
#include "text/tokenizer.h"

namespace puna::text {

/// Tiles of one image as the model sees it (SPEC 6): rows x columns, plus a global tile when there is more than one.
struct ImageTiles {
  int rows = 1;
  int columns = 1;
  int tokens_per_tile = 144;
  int num_tiles() const { return rows * columns + (rows * columns > 1 ? 1 : 0); }
};

/// A piece of a message: text, or an image by its index in the prompt's image list.
struct TextPart {
  std::string text;
};
struct ImagePart {
  size_t image = 0;
};
using Part = std::variant<TextPart, ImagePart>;

struct ToolCall {
  std::string name;
  OrderedJson arguments;  // object; its keys are written in their order
};

enum class Role { kSystem, kUser, kAssistant, kTool };

struct Message {
  Role role = Role::kUser;
  std::vector<Part> parts;
  std::vector<ToolCall> tool_calls;  // assistant only
  bool end_of_message = false;       // Meta form: an assistant turn that expects a tool result
};

enum class ChatForm { kMeta, kHuggingFace };
/// How Meta's form writes tool calls.
enum class ToolCallStyle { kJson, kPythonList, kFunctionTag };

struct ChatOptions {
  ChatForm form = ChatForm::kHuggingFace;
  ToolCallStyle tool_call_style = ToolCallStyle::kJson;
  OrderedJson tools = nullptr;        // Hugging Face form: array of tool definitions
  bool tools_in_user_message = true;  // Hugging Face form
  bool add_generation_prompt = true;  // end with the assistant's open header
};

/// Token ids of the prompt, <|begin_of_text|> first. `images` are those that the ImageParts refer to, each once and in
/// order. User text never becomes special tokens in either form. Throws Error on what a form cannot express.
std::vector<TokenId> encode_chat(const Tokenizer& tokenizer, const std::vector<Message>& messages,
                                 const std::vector<ImageTiles>& images, const ChatOptions& options = {});

/// The token ids that stand for one image: start, tiles with separators, global tile, end.
std::vector<TokenId> image_tokens(const Tokenizer& tokenizer, const ImageTiles& tiles);

/// Ids that end a turn: <|end_of_text|>, <|eom|>, <|eot|> (those the vocabulary has).
std::vector<TokenId> stop_tokens(const Tokenizer& tokenizer);

}  // namespace puna::text
