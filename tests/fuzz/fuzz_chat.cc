// Any bytes as messages and tools: in both chat forms special tokens come from the structure alone, never from what
// somebody wrote, and pictures stand where they were put.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "io/base64.h"
#include "server/api_error.h"
#include "server/messages.h"
#include "server/tools.h"
#include "text/chat.h"

namespace {

using namespace puna;

/// All single bytes, and Meta's special tokens behind them.
std::shared_ptr<const text::Tokenizer> byte_tokenizer() {
  const std::string file = fmt::format("/tmp/puna_fuzz_chat_{}", ::getpid());
  {
    std::ofstream ranks(file);
    for (int b = 0; b < 256; ++b) {
      const char byte = static_cast<char>(b);
      ranks << io::encode_base64({&byte, 1}) << ' ' << b << '\n';
    }
  }
  auto tokenizer = text::Tokenizer::from_rank_file(file);
  ::unlink(file.c_str());
  return tokenizer;
}

std::vector<text::TokenId> specials_of(const text::Tokenizer& tokenizer, const std::vector<text::TokenId>& tokens) {
  std::vector<text::TokenId> result;
  std::copy_if(tokens.begin(), tokens.end(), std::back_inserter(result),
               [&](text::TokenId id) { return tokenizer.is_special(id); });
  return result;
}

/// The same messages, saying nothing but "x".
std::vector<text::Message> silenced(std::vector<text::Message> messages) {
  for (text::Message& message : messages)
    for (text::Part& part : message.parts)
      if (auto* said = std::get_if<text::TextPart>(&part)) said->text.assign(1, 'x');
  return messages;
}

void check(const text::Tokenizer& tokenizer, const std::vector<text::Message>& messages, size_t num_images,
           const text::ChatOptions& options) {
  std::vector<text::ImageTiles> images;
  for (size_t i = 0; i < num_images; ++i)
    images.push_back({1 + static_cast<int>(i % 3), 1 + static_cast<int>(i % 2), 2});
  std::vector<text::TokenId> tokens;
  try {
    tokens = text::encode_chat(tokenizer, messages, images, options);
  } catch (const Error&) {
    return;
  }
  const auto quiet = text::encode_chat(tokenizer, silenced(messages), images, options);
  if (specials_of(tokenizer, tokens) != specials_of(tokenizer, quiet)) std::abort();
  int64_t patches = 0;
  for (const text::ImageTiles& image : images) patches += int64_t{image.num_tiles()} * image.tokens_per_tile;
  if (std::count(tokens.begin(), tokens.end(), tokenizer.special("<|patch|>").value()) != patches) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::shared_ptr<const text::Tokenizer> kTokenizer = byte_tokenizer();
  try {
    const OrderedJson body = parse_ordered_json({reinterpret_cast<const char*>(data), size}, "body");
    server::Fields fields(body);
    const OrderedJson* given = fields.find("messages");
    if (!given) return 0;
    const server::Conversation conversation = server::read_messages(*given, "messages");
    text::ChatOptions options;
    options.tools = server::read_tools(fields).definitions;
    for (const bool in_user : {true, false}) {
      options.form = text::ChatForm::kHuggingFace;
      options.tools_in_user_message = in_user;
      check(*kTokenizer, conversation.messages, conversation.images.size(), options);
    }
    options.form = text::ChatForm::kMeta;
    for (const auto style :
         {text::ToolCallStyle::kJson, text::ToolCallStyle::kPythonList, text::ToolCallStyle::kFunctionTag}) {
      options.tool_call_style = style;
      check(*kTokenizer, conversation.messages, conversation.images.size(), options);
    }
  } catch (const server::ApiError&) {
  } catch (const Error&) {
  }
  return 0;
}
