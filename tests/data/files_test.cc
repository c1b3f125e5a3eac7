// Records of files: the forms of JSONL, what is wrong with a line, and which images may be read.
#include "data/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "data/encode.h"
#include "data/record_json.h"
#include "data/write_records.h"
#include "io/file.h"
#include "tests/data/support.h"
#include "tests/support/golden.h"

namespace puna::data {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::vector<Record> read_all(RecordSource& source) {
  std::vector<Record> records;
  while (auto record = source.next()) records.push_back(std::move(*record));
  return records;
}

/// The record as it is trained on.
std::string shown(const Record& record) {
  const EncodedDocument document = encode_record(record, test::data_encoding());
  return test::show({document.tokens, document.loss, {}});
}

std::string error_of(const std::string& line) {
  try {
    parse_record(line, "f.jsonl:7", [](const std::string& path) { return "bytes of " + path; });
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("f.jsonl:7"));
    return error.what();
  }
  return "no error";
}

TEST(Records, HaveTheirForms) {
  const auto parse = [](const std::string& line) {
    return parse_record(line, "here", [](const std::string& path) { return "bytes of " + path; });
  };
  const Record text = parse(R"({"text": "a <image> b"})");
  EXPECT_EQ(std::get<text::TextPart>(text.messages[0].parts.at(0)).text, "a <image> b");
  EXPECT_EQ(text.id, "here");
  const Record images = parse(R"({"text": "<image>a<image><image>b", "images": ["x", "y", "z"]})");
  EXPECT_EQ(images.images, (std::vector<std::string>{"bytes of x", "bytes of y", "bytes of z"}));
  EXPECT_EQ(images.messages[0].parts.size(), 5u);
  EXPECT_EQ(std::get<text::ImagePart>(images.messages[0].parts[3]).image, 2u);
  const Record chat = parse(R"({"messages": [{"role": "user", "content": [{"type": "image", "data": "UE5HIQ=="},
      {"type": "text", "text": "t"}, {"type": "image", "path": "p"}]}, {"role": "assistant", "content": "c"}]})");
  EXPECT_EQ(chat.kind, Record::Kind::kChat);
  EXPECT_EQ(chat.images, (std::vector<std::string>{"PNG!", "bytes of p"}));
  ASSERT_EQ(chat.messages.size(), 2u);
  EXPECT_EQ(chat.messages[0].parts.size(), 3u);
  EXPECT_EQ(chat.messages[1].role, text::Role::kAssistant);
}

TEST(Records, WhatIsWrongIsSaidWithFileAndLine) {
  EXPECT_THAT(error_of("{"), HasSubstr("f.jsonl:7"));
  EXPECT_THAT(error_of("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(error_of("{}"), HasSubstr("neither 'text' nor 'messages'"));
  EXPECT_THAT(error_of(R"({"txt": "a"})"), HasSubstr("unknown key 'txt'; did you mean 'text'?"));
  EXPECT_THAT(error_of(R"({"text": 3})"), HasSubstr("'text' is not a string"));
  EXPECT_THAT(error_of(R"({"text": "a", "images": ["x"]})"), HasSubstr("0 places <image>, 'images' names 1"));
  EXPECT_THAT(error_of(R"({"text": "<image>", "images": 1})"), HasSubstr("'images' is not a list"));
  EXPECT_THAT(error_of(R"({"text": "<image>", "images": [1]})"), HasSubstr("'images' is not a string"));
  EXPECT_THAT(error_of(R"({"messages": [], "text": ""})"), HasSubstr("unknown key 'text'"));
  EXPECT_THAT(error_of(R"({"messages": {}})"), HasSubstr("'messages' is not a list"));
  EXPECT_THAT(error_of(R"({"messages": [1]})"), HasSubstr("not an object"));
  EXPECT_THAT(error_of(R"({"messages": [{"role": "asistant", "content": ""}]})"),
              HasSubstr("did you mean 'assistant'?"));
  EXPECT_THAT(error_of(R"({"messages": [{"role": "user"}]})"), HasSubstr("has no 'content'"));
  EXPECT_THAT(error_of(R"({"messages": [{"role": "user", "content": 1}]})"), HasSubstr("neither a string nor a list"));
  EXPECT_THAT(error_of(R"({"messages": [{"role": "user", "content": "", "contents": ""}]})"), HasSubstr("unknown key"));
  const auto part = [](const std::string& json) {
    return error_of(R"({"messages": [{"role": "user", "content": [)" + json + "]}]}");
  };
  EXPECT_THAT(part("1"), HasSubstr("is not an object"));
  EXPECT_THAT(part(R"({"type": "txt"})"), HasSubstr("did you mean 'text'?"));
  EXPECT_THAT(part(R"({"type": "image"})"), HasSubstr("either 'path' or 'data'"));
  EXPECT_THAT(part(R"({"type": "image", "path": "a", "data": ""})"), HasSubstr("either 'path' or 'data'"));
  EXPECT_THAT(part(R"({"type": "image", "data": "abc"})"), HasSubstr("not base64"));
  EXPECT_THAT(part(R"({"type": "image", "data": "ab=c"})"), HasSubstr("not base64"));
  EXPECT_THAT(part(R"({"type": "image", "url": "x"})"), HasSubstr("unknown key 'url'"));
}

TEST(Files, AreReadInOrderWithTheirImages) {
  const test::TemporaryDirectory dir;
  fs::create_directories(dir.path() / "sub/pictures");
  io::write_file(dir.path() / "a.txt", "first");
  io::write_file(dir.path() / "sub/b.jsonl",
                 "{\"text\": \"second\"}\r\n\n{\"text\": \"<image>\", \"images\": [\"pictures/p.png\"]}");
  io::write_file(dir.path() / "sub/pictures/p.png", test::png(16, 16, 3));
  io::write_file(dir.path() / "z.md", "last");
  io::write_file(dir.path() / "ignored.py", "");
  const auto source = open_files({dir.path()});
  const auto records = read_all(*source);
  ASSERT_EQ(records.size(), 4u);
  EXPECT_EQ(shown(records[0]), "<|begin_of_text|>[first<|end_of_text|>]");
  EXPECT_EQ(shown(records[1]), "<|begin_of_text|>[second<|end_of_text|>]");
  EXPECT_EQ(records[2].images, std::vector{test::png(16, 16, 3)});
  EXPECT_THAT(records[2].id, HasSubstr("b.jsonl:3"));
  EXPECT_EQ(shown(records[3]), "<|begin_of_text|>[last<|end_of_text|>]");
  EXPECT_GE(source->progress(), 1);

  EXPECT_EQ(open_files({dir.path()})->fingerprint(), source->fingerprint());
  io::write_file(dir.path() / "a.txt", "other");
  fs::last_write_time(dir.path() / "a.txt", fs::file_time_type::clock::now() + std::chrono::hours(1));
  EXPECT_NE(open_files({dir.path()})->fingerprint(), source->fingerprint());
}

TEST(Files, ImagesOutsideTheDirectoryAreRefused) {
  const test::TemporaryDirectory dir;
  fs::create_directories(dir.path() / "in");
  io::write_file(dir.path() / "secret.png", "secret");
  fs::create_symlink(dir.path() / "secret.png", dir.path() / "in/link.png");
  const std::vector<std::string> names = {"../secret.png", "x/../../secret.png", "link.png", "",
                                          (dir.path() / "secret.png").string()};
  for (const std::string& name : names) {
    io::write_file(dir.path() / "in/f.jsonl", R"({"text": "<image>", "images": [")" + name + "\"]}");
    try {
      open_files({dir.path() / "in/f.jsonl"})->next();
      FAIL() << name;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("f.jsonl:1"));
      EXPECT_THAT(error.what(), HasSubstr("is refused"));
    }
  }
  io::write_file(dir.path() / "in/f.jsonl", R"({"text": "<image>", "images": ["none.png"]})");
  EXPECT_THROW(open_files({dir.path() / "in/f.jsonl"})->next(), Error);
}

TEST(Files, MissingAndUnknownOnesAreNamed) {
  const test::TemporaryDirectory dir;
  EXPECT_THROW(open_files({dir.path() / "none.txt"}), Error);
  EXPECT_THROW(open_files({dir.path()}), Error);
  io::write_file(dir.path() / "a.csv", "");
  EXPECT_THROW(open_files({dir.path() / "a.csv"}), Error);
}

TEST(Files, WrittenRecordsAreReadBack) {
  const test::TemporaryDirectory dir;
  text::Message user, bot;
  user.parts.emplace_back(text::TextPart{"what is "});
  user.parts.emplace_back(text::ImagePart{0});
  bot.role = text::Role::kAssistant;
  bot.parts.emplace_back(text::TextPart{"red \"\xC3\xA9\"\n"});
  const std::vector<Record> records = {
      test::document("plain <image>\n"),
      test::document_with_images({"a", "b", ""}, {test::png(16, 16, 1), test::png(30, 16, 2)}),
      test::chat({user, bot}, {test::png(16, 30, 3)})};
  test::ListSource source(records);
  EXPECT_EQ(write_records(source, dir.path() / "out", "r"), 3);
  const auto back = read_all(*open_files({dir.path() / "out"}));
  ASSERT_EQ(back.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(shown(back[i]), shown(records[i]));
    EXPECT_EQ(back[i].images, records[i].images);
  }
  test::ListSource again(records);
  EXPECT_THROW(write_records(again, dir.path() / "out", "r"), Error);
}

}  // namespace
}  // namespace puna::data
