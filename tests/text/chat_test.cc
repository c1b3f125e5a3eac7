// Chats to ids, in both forms, on the golden chats of every set.
#include "text/chat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "base/error.h"
#include "tests/support/golden.h"
#include "tests/text/meta_tokenizer.h"

namespace puna::text {
namespace {

OrderedJson read_ordered(const std::filesystem::path& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return parse_ordered_json(text.str(), path.string());
}

Role role_of(const std::string& name) {
  if (name == "system") return Role::kSystem;
  if (name == "user") return Role::kUser;
  return name == "assistant" ? Role::kAssistant : Role::kTool;
}

/// The messages of a golden row; `images` receives the names of its images in order.
std::vector<Message> golden_messages(const OrderedJson& rows, std::vector<std::string>* images = nullptr) {
  std::vector<Message> messages;
  for (const auto& row : rows) {
    Message message{role_of(row["role"]), {}, {}, row.value("stop_reason", "") == "end_of_message"};
    if (row["content"].is_string()) {
      message.parts.emplace_back(TextPart{row["content"].get<std::string>()});
    } else {
      for (const auto& part : row["content"]) {
        if (part.contains("text")) {
          message.parts.emplace_back(TextPart{part["text"].get<std::string>()});
        } else {
          message.parts.emplace_back(ImagePart{images->size()});
          images->push_back(part["image"]);
        }
      }
    }
    for (const auto& call : row.value("tool_calls", OrderedJson::array()))
      message.tool_calls.push_back({call["tool_name"], call["arguments"]});
    messages.push_back(message);
  }
  return messages;
}

bool has_special_text(const std::vector<Message>& messages) {
  for (const Message& message : messages) {
    for (const Part& part : message.parts) {
      if (const auto* text = std::get_if<TextPart>(&part); text && text->text.find("<|") != std::string::npos)
        return true;
    }
  }
  return false;
}

TEST(ChatGolden, MetaFormInThreeToolCallStyles) {
  const auto tokenizer = test::meta_tokenizer();
  if (!tokenizer) GTEST_SKIP() << test::kNoRankFile;
  constexpr std::pair<const char*, ToolCallStyle> kStyles[] = {{"meta_ids_json", ToolCallStyle::kJson},
                                                               {"meta_ids_python_list", ToolCallStyle::kPythonList},
                                                               {"meta_ids_function_tag", ToolCallStyle::kFunctionTag}};
  for (const auto& set : test::golden_sets()) {
    for (const auto& row : read_ordered(set / "tokenizer/chat.json")) {
      for (const auto& [key, style] : kStyles) {
        if (!row.contains(key)) continue;
        const auto ids = encode_chat(*tokenizer, golden_messages(row["messages"]), {},
                                     {.form = ChatForm::kMeta, .tool_call_style = style});
        EXPECT_EQ(ids, row[key].get<std::vector<TokenId>>()) << key << tokenizer->decode(ids);
      }
    }
  }
}

TEST(ChatGolden, HuggingFaceForm) {
  const auto tokenizer = test::meta_tokenizer();
  if (!tokenizer) GTEST_SKIP() << test::kNoRankFile;
  for (const auto& set : test::golden_sets()) {
    for (const auto& row : read_ordered(set / "tokenizer/chat.json")) {
      ChatOptions options;
      if (row.contains("tools")) options.tools = row["tools"];
      options.tools_in_user_message = row.value("tools_in_user_message", true);
      const auto messages = golden_messages(row["messages"]);
      const auto ids = encode_chat(*tokenizer, messages, {}, options);
      EXPECT_EQ(tokenizer->decode(ids), row["hf_text"].get<std::string>());
      if (!has_special_text(messages)) {
        EXPECT_EQ(ids, row["hf_ids"].get<std::vector<TokenId>>()) << row["hf_text"];
      }
    }
  }
}

// transformers renders the chat to one string and parses special tokens anywhere in it, so its users can close their
// turn and open a system turn. Puna's user text stays text, in the Hugging Face form too: here the ids must differ.
TEST(ChatGolden, HuggingFaceFormRefusesSpecialTokensFromUserText) {
  const auto tokenizer = test::meta_tokenizer();
  if (!tokenizer) GTEST_SKIP() << test::kNoRankFile;
  int num_tricks = 0;
  for (const auto& set : test::golden_sets()) {
    for (const auto& row : read_ordered(set / "tokenizer/chat.json")) {
      const auto messages = golden_messages(row["messages"]);
      if (!has_special_text(messages)) continue;
      ++num_tricks;
      const auto ids = encode_chat(*tokenizer, messages, {});
      EXPECT_NE(ids, row["hf_ids"].get<std::vector<TokenId>>());
      EXPECT_EQ(std::count(ids.begin(), ids.end(), tokenizer->special("<|eot|>")), std::ssize(messages));
    }
  }
  EXPECT_GE(num_tricks, 1);
}

TEST(ChatGolden, ImagesInMessages) {
  const auto tokenizer = test::meta_tokenizer();
  if (!tokenizer) GTEST_SKIP() << test::kNoRankFile;
  for (const auto& set : test::golden_sets()) {
    std::map<std::string, ImageTiles> grids;
    const auto images = read_ordered(set / "images/images.json");
    for (const auto& [name, row] : images.items()) {  // "photo_640x480__t336m16"
      if (name.ends_with("__t336m16"))
        grids[name.substr(0, name.find("__"))] = {row["grid_hw"][0], row["grid_hw"][1], 144};
    }
    for (const auto& row : read_ordered(set / "images/chat_images.json")) {
      std::vector<std::string> names;
      const auto messages = golden_messages(row["messages"], &names);
      std::vector<ImageTiles> tiles;
      for (const auto& name : names) tiles.push_back(grids.at(name.substr(0, name.find('.'))));
      const auto expected = test::golden_ids(Json(row), "ids");
      EXPECT_EQ(encode_chat(*tokenizer, messages, tiles), expected);
      if (row.value("meta_ids_equal", false)) {
        EXPECT_EQ(encode_chat(*tokenizer, messages, tiles, {.form = ChatForm::kMeta}), expected);
      }
    }
  }
}

}  // namespace
}  // namespace puna::text
