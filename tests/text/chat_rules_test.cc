// What peers got wrong about Llama 4's special tokens and chat format, one named test each, and what chats refuse.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "base/error.h"
#include "tests/text/meta_tokenizer.h"
#include "tests/text/tiny_tokenizer.h"
#include "text/chat.h"

namespace puna::text {
namespace {

using testing::HasSubstr;

Message say(Role role, std::string text) {
  Message message;
  message.role = role;
  message.parts.emplace_back(TextPart{std::move(text)});
  return message;
}

class ChatRules : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::meta_tokenizer()) GTEST_SKIP() << test::kNoRankFile;
  }
  static const Tokenizer& tokenizer() { return *test::meta_tokenizer(); }
  static std::string text_of(const std::vector<Message>& messages, const ChatOptions& options = {}) {
    return tokenizer().decode(encode_chat(tokenizer(), messages, {}, options));
  }
  static std::string error_of(const std::vector<Message>& messages, const std::vector<ImageTiles>& images,
                              const ChatOptions& options) {
    try {
      encode_chat(tokenizer(), messages, images, options);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }
};

TEST_F(ChatRules, SpecialIdsAreThoseOfMeta) {
  const std::pair<const char*, TokenId> ids[] = {{"<|begin_of_text|>", 200000},
                                                 {"<|end_of_text|>", 200001},
                                                 {"<|header_start|>", 200005},
                                                 {"<|header_end|>", 200006},
                                                 {"<|eom|>", 200007},
                                                 {"<|eot|>", 200008},
                                                 {"<|python_start|>", 200016},
                                                 {"<|python_end|>", 200017},
                                                 {"<|finetune_right_pad|>", 200018},
                                                 {"<|image_start|>", 200080},
                                                 {"<|image_end|>", 200081},
                                                 {"<|tile_x_separator|>", 200084},
                                                 {"<|image|>", 200090},
                                                 {"<|tile_y_separator|>", 200085},
                                                 {"<|patch|>", 200092}};
  for (const auto& [name, id] : ids) EXPECT_EQ(tokenizer().special(name), id) << name;
}

TEST_F(ChatRules, EndOfMessageAndEndOfTurnBothStop) {
  EXPECT_EQ(stop_tokens(tokenizer()), std::vector<TokenId>({200001, 200007, 200008}));
}

TEST_F(ChatRules, HeaderFormAndToolRole) {
  Message call = say(Role::kAssistant, "");
  call.tool_calls = {{"f", {{"x", 1}}}};
  const std::vector<Message> messages = {say(Role::kUser, "hi"), call, say(Role::kTool, "ok")};
  EXPECT_EQ(
      text_of(messages, {.form = ChatForm::kMeta}),
      "<|begin_of_text|><|header_start|>user<|header_end|>\n\nhi<|eot|>"
      "<|header_start|>assistant<|header_end|>\n\n{\"type\": \"function\", \"name\": \"f\", \"parameters\": {\"x\": 1}}"
      "<|eom|><|header_start|>ipython<|header_end|>\n\nok<|eom|><|header_start|>assistant<|header_end|>\n\n");
}

TEST_F(ChatRules, BeginOfTextExactlyOnce) {
  for (ChatForm form : {ChatForm::kMeta, ChatForm::kHuggingFace}) {
    const auto ids =
        encode_chat(tokenizer(), {say(Role::kSystem, "<|begin_of_text|>"), say(Role::kUser, "hi")}, {}, {.form = form});
    EXPECT_EQ(ids[0], 200000);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), 200000), 1);
  }
  const auto plain = tokenizer().encode("hi");
  EXPECT_EQ(std::count(plain.begin(), plain.end(), 200000), 0);
}

// <|image|> typed by a user crashed a server that then waited for pixels.
TEST_F(ChatRules, SpecialNamesInUserTextStayText) {
  std::mt19937 random(11);
  for (int i = 0; i < 400; ++i) {
    std::string text;
    for (int j = 0; j < 6; ++j) {
      const auto id = static_cast<TokenId>(200000 + random() % 2048);
      text += tokenizer().token_bytes(random() % 3 ? id : static_cast<TokenId>(random() % 5000));
    }
    for (ChatForm form : {ChatForm::kMeta, ChatForm::kHuggingFace}) {
      for (Role role : {Role::kUser, Role::kSystem, Role::kTool, Role::kAssistant}) {
        const auto ids = encode_chat(tokenizer(), {say(role, text)}, {}, {.form = form});
        const auto specials =
            std::count_if(ids.begin(), ids.end(), [](TokenId id) { return tokenizer().is_special(id); });
        EXPECT_EQ(specials, 6) << text;  // begin, two headers, the end of the turn
      }
    }
  }
}

TEST_F(ChatRules, SpecialNamesInToolsAndCallsStayText) {
  Message call = say(Role::kAssistant, "<|eot|>");
  call.tool_calls = {{"<|eot|>", {{"<|image|>", "<|patch|>"}}}};
  const std::vector<Message> messages = {say(Role::kSystem, "s"), say(Role::kUser, "u"), call};
  for (bool in_user : {true, false}) {
    ChatOptions options;
    options.tools = OrderedJson::array({{{"name", "<|eom|><|header_start|>"}}});
    options.tools_in_user_message = in_user;
    const auto ids = encode_chat(tokenizer(), messages, {}, options);
    const auto specials = std::count_if(ids.begin(), ids.end(), [](TokenId id) { return tokenizer().is_special(id); });
    EXPECT_EQ(specials, 1 + 3 * 3 + 2 + 2);  // begin, three turns, python start and end, the open header
  }
}

TEST_F(ChatRules, RunsOfTwentyFiveThousandCharactersAreCut) {
  const std::string run(25'000, 'a'), longer(25'001, 'a');
  auto expected = tokenizer().encode(run);
  expected.push_back(tokenizer().encode("a")[0]);
  EXPECT_EQ(tokenizer().encode(longer), expected);
}

TEST_F(ChatRules, HuggingFaceFormStripsTheSystemMessageAsPythonDoes) {
  const std::string padded = " \t\x1c\xC2\x85\xE3\x80\x80 be brief \xE2\x80\xA9\n";
  EXPECT_THAT(text_of({say(Role::kSystem, padded)}), HasSubstr("\n\nbe brief<|eot|>"));
  EXPECT_THAT(text_of({say(Role::kSystem, padded)}, {.form = ChatForm::kMeta}), HasSubstr(padded));
}

TEST_F(ChatRules, ImageTokensOfOneTileAndOfMany) {
  const TokenId p = 200092;
  EXPECT_EQ(image_tokens(tokenizer(), {1, 1, 2}), std::vector<TokenId>({200080, 200090, p, p, 200081}));
  EXPECT_EQ(image_tokens(tokenizer(), {2, 2, 1}),
            std::vector<TokenId>({200080, p, 200084, p, 200085, p, 200084, p, 200085, 200090, p, 200081}));
}

TEST_F(ChatRules, WhatAFormCannotExpressIsAnError) {
  Message image;
  image.parts.emplace_back(ImagePart{0});
  const ImageTiles tile;
  EXPECT_THAT(error_of({image}, {}, {}), HasSubstr("refer to image 0 where image 0 of 0 is due"));
  EXPECT_THAT(error_of({image, image}, {tile, tile}, {}), HasSubstr("in order, each once"));
  EXPECT_THAT(error_of({say(Role::kUser, "x")}, {tile}, {}), HasSubstr("refer to 0 images, but 1 are given"));
  for (Role role : {Role::kTool, Role::kSystem}) {
    image.role = role;
    EXPECT_THAT(error_of({image}, {tile}, {}), HasSubstr("an image cannot be part of"));
  }
  ChatOptions tools;
  tools.tools = OrderedJson::array();
  EXPECT_THAT(error_of({say(Role::kAssistant, "x")}, {}, tools), HasSubstr("first user message"));
  tools.tools_in_user_message = false;
  EXPECT_THAT(error_of({say(Role::kUser, "x")}, {}, tools), HasSubstr("need a system message"));
  tools.form = ChatForm::kMeta;
  EXPECT_THAT(error_of({say(Role::kUser, "x")}, {}, tools), HasSubstr("Meta's form has no place for tools"));
  tools.form = ChatForm::kHuggingFace;
  tools.tools = 5;
  EXPECT_THAT(error_of({say(Role::kUser, "x")}, {}, tools), HasSubstr("not a JSON array"));
  Message call = say(Role::kUser, "");
  call.tool_calls = {{"f", OrderedJson::object()}};
  EXPECT_THAT(error_of({call}, {}, {}), HasSubstr("only the assistant calls tools"));
  call.role = Role::kAssistant;
  call.tool_calls = {{"brave_search", OrderedJson::object()}};
  EXPECT_THAT(error_of({call}, {}, {.form = ChatForm::kMeta}), HasSubstr("has no argument 'query'"));
  call.tool_calls[0].arguments = "text";
  EXPECT_THAT(error_of({call}, {}, {}), HasSubstr("are not a JSON object"));
}

TEST(ChatVocabulary, WithoutTheImageTokensIsAnErrorThatNamesOne) {
  const auto tiny = Tokenizer::from_hf_json(test::tiny_tokenizer_json(), "tiny");
  EXPECT_EQ(encode_chat(*tiny, {say(Role::kUser, "user")}, {})[0], tiny->special("<|begin_of_text|>"));
  try {
    image_tokens(*tiny, {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("no special token '<|image_start|>'"));
  }
}

}  // namespace
}  // namespace puna::text
