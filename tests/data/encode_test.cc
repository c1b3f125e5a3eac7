// Records to tokens: what the model is to predict, in documents and chats, with images and several turns.
#include "data/encode.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/data/support.h"

namespace puna::data {
namespace {

using text::ImagePart;
using text::Role;
using text::TextPart;

/// The record's tokens as test::show() writes them: [ ] around what has loss.
std::string shown(Record record, text::ChatForm form = text::ChatForm::kHuggingFace) {
  auto encoding = test::data_encoding();
  encoding.chat_form = form;
  const EncodedDocument document = encode_record(std::move(record), encoding);
  return test::show({document.tokens, document.loss, {}});
}

text::Message message(Role role, std::string text) {
  text::Message message;
  message.role = role;
  message.parts.emplace_back(TextPart{std::move(text)});
  return message;
}

TEST(Encode, DocumentsHaveLossOnAllButTheFirstToken) {
  EXPECT_EQ(shown(test::document("the thin")), "<|begin_of_text|>[the thin<|end_of_text|>]");
  EXPECT_EQ(shown(test::document("")), "<|begin_of_text|>[<|end_of_text|>]");
  EXPECT_EQ(shown(test::document("<|eot|>\xFF")), "<|begin_of_text|>[<|eot|>\xFF<|end_of_text|>]");
  const auto ids = encode_record(test::document("<|eot|>"), test::data_encoding()).tokens;
  EXPECT_EQ(ids.size(), 9u) << "text never becomes special tokens";
}

TEST(Encode, AdjacentTextsOfADocumentAreOne) {
  Record two = test::document("th");
  two.messages[0].parts.emplace_back(TextPart{"e"});
  EXPECT_EQ(encode_record(two, test::data_encoding()).tokens,
            encode_record(test::document("the"), test::data_encoding()).tokens);
}

TEST(Encode, ChatsHaveLossOnWhatTheAssistantSaysAndItsEnd) {
  const std::string user = "<|header_start|>user<|header_end|>\n\n",
                    bot = "<|header_start|>assistant<|header_end|>\n\n";
  const std::string begin = "<|begin_of_text|>", eot = "<|eot|>";
  const std::string image = "<|image_start|><|image|>....<|image_end|>";
  text::Message picture = message(Role::kUser, "see ");
  picture.parts.emplace_back(ImagePart{0});
  text::Message drawing = message(Role::kAssistant, "here ");
  drawing.parts.emplace_back(ImagePart{1});
  drawing.parts.emplace_back(TextPart{" done"});
  const struct {
    std::vector<text::Message> messages;
    std::vector<std::string> images;
    std::string expected;
  } table[] = {
      {{message(Role::kUser, "hi"), message(Role::kAssistant, "yes")},
       {},
       begin + user + "hi" + eot + bot + "[yes<|eot|>]"},
      {{message(Role::kSystem, "be"), message(Role::kUser, "a"), message(Role::kAssistant, "b"),
        message(Role::kUser, "c"), message(Role::kAssistant, "d")},
       {},
       begin + "<|header_start|>system<|header_end|>\n\nbe" + eot + user + "a" + eot + bot + "[b<|eot|>]" + user + "c" +
           eot + bot + "[d<|eot|>]"},
      {{message(Role::kUser, "a"), message(Role::kAssistant, "")}, {}, begin + user + "a" + eot + bot + "[<|eot|>]"},
      {{picture, message(Role::kAssistant, "red")},
       {test::png(16, 16, 1)},
       begin + user + "see " + image + eot + bot + "[red<|eot|>]"},
      {{picture, drawing},
       {test::png(16, 16, 1), test::png(16, 16, 2)},
       begin + user + "see " + image + eot + bot + "[here ]" + image + "[ done<|eot|>]"},
      {{message(Role::kAssistant, "a"), message(Role::kTool, "b"), message(Role::kUser, "assistant")},
       {},
       begin + bot + "[a<|eot|>]<|header_start|>ipython<|header_end|>\n\n\"b\"" + eot + user + "assistant" + eot},
  };
  for (const auto& row : table) EXPECT_EQ(shown(test::chat(row.messages, row.images)), row.expected);
}

// The token of the header's end may have the answer's first bytes in it; the model is not asked for what it begins
// with.
TEST(Encode, ATokenThatBeginsInTheHeaderHasNoLoss) {
  const auto record = test::chat({message(Role::kUser, "a"), message(Role::kAssistant, "\nyes")});
  EXPECT_EQ(shown(record),
            "<|begin_of_text|><|header_start|>user<|header_end|>\n\na<|eot|>"
            "<|header_start|>assistant<|header_end|>\n\n\n[yes<|eot|>]");
  EXPECT_EQ(shown(record, text::ChatForm::kMeta),
            "<|begin_of_text|><|header_start|>user<|header_end|>\n\na<|eot|>"
            "<|header_start|>assistant<|header_end|>\n\n[\nyes<|eot|>]");
}

TEST(Encode, ChatsAreEncodedAsPromptsAre) {
  for (const auto form : {text::ChatForm::kHuggingFace, text::ChatForm::kMeta}) {
    auto encoding = test::data_encoding();
    encoding.chat_form = form;
    const std::vector<text::Message> messages = {message(Role::kSystem, " be\n"), message(Role::kUser, "\n a"),
                                                 message(Role::kAssistant, "<|eot|>b "), message(Role::kUser, "")};
    const auto document = encode_record(test::chat(messages), encoding);
    EXPECT_EQ(document.tokens,
              text::encode_chat(*encoding.tokenizer, messages, {}, {.form = form, .add_generation_prompt = false}));
    EXPECT_EQ(document.loss.size(), document.tokens.size());
  }
}

TEST(Encode, TheHashIsOfWhatDecidesTheTokens) {
  const auto hash_with = [](auto change) {
    Encoding encoding = test::data_encoding();
    change(encoding);
    return encoding_hash(encoding);
  };
  const std::string plain = hash_with([](Encoding&) {});
  EXPECT_EQ(hash_with([](Encoding&) {}), plain);
  EXPECT_EQ(hash_with([](Encoding& e) { e.image_processor.mean[0] = 0.1; }), plain);
  EXPECT_NE(hash_with([](Encoding& e) { e.tokens_per_tile = 5; }), plain);
  EXPECT_NE(hash_with([](Encoding& e) { e.image_processor.max_tiles = 5; }), plain);
  EXPECT_NE(hash_with([](Encoding& e) { e.chat_form = text::ChatForm::kMeta; }), plain);
}

}  // namespace
}  // namespace puna::data
