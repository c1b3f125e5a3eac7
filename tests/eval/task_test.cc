#include "eval/task.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "io/file.h"
#include "tests/support/golden.h"

namespace puna::eval {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class TaskFile : public testing::Test {
 protected:
  Task read(const std::string& text, int64_t limit = 0) {
    io::write_file(file(), text);
    return read_task(file(), limit);
  }
  Item item(const std::string& text) { return read(text).items.at(0); }

  std::string error(const std::string& text) {
    try {
      read(text);
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      return message;
    }
    ADD_FAILURE() << "no error for " << text.substr(0, 200);
    return "";
  }

  void SetUp() override { fs::create_directories(dir()); }
  fs::path dir() const { return dir_.path() / "tasks"; }
  fs::path file() const { return dir() / "t.jsonl"; }

 private:
  test::TemporaryDirectory dir_;
};

TEST_F(TaskFile, HeaderIsTheDefaultOfItems) {
  const Task task = read(
      R"({"task": {"kind": "numeric", "title": "Sums", "threshold": 0.95, "max_tokens": 8, "system": "Be brief.", "tolerance": 0.5}}
{"prompt": "1+1?", "answer": 2}

{"id": "b", "kind": "exact_match", "prompt": "Hi", "answers": ["a", "b"], "max_tokens": 3, "match": "contains"}
{"id": 7, "kind": "contains", "prompt": "Hi", "contains": ["x", ["three", "3"]], "forbidden": ["no"], "normalise": false}
{"kind": "multiple_choice", "prompt": "Hi", "choices": ["a", "b"], "answer": "b", "score": "normalised", "format": "raw", "system": ""}
)");
  EXPECT_EQ(task.name, "t");
  EXPECT_EQ(task.title, "Sums");
  EXPECT_EQ(task.threshold, 0.95);
  ASSERT_EQ(task.items.size(), 4u);
  const Item &sum = task.items[0], &exact = task.items[1], &fact = task.items[2], &choice = task.items[3];
  EXPECT_EQ(sum.kind(), Kind::kNumeric);
  EXPECT_EQ(sum.line, 2);
  EXPECT_EQ(sum.id, "2");
  EXPECT_EQ(sum.number, 2);
  EXPECT_EQ(sum.settings.tolerance, 0.5);
  EXPECT_EQ(sum.settings.max_tokens, 8);
  ASSERT_EQ(sum.messages.size(), 2u);
  EXPECT_EQ(prompt_text(sum), "system: Be brief.\nuser: 1+1?");
  EXPECT_EQ(exact.line, 4);
  EXPECT_EQ(exact.id, "b");
  EXPECT_EQ(exact.settings.max_tokens, 3);
  EXPECT_TRUE(exact.settings.match_within);
  EXPECT_THAT(exact.answers, ElementsAre("a", "b"));
  EXPECT_EQ(fact.id, "7");
  EXPECT_THAT(fact.facts, ElementsAre(ElementsAre("x"), ElementsAre("three", "3")));
  EXPECT_THAT(fact.forbidden, ElementsAre("no"));
  EXPECT_FALSE(fact.settings.normalise);
  EXPECT_EQ(choice.right_choice, 1u);
  EXPECT_TRUE(choice.settings.per_byte_choices);
  EXPECT_FALSE(choice.settings.chat);
  EXPECT_EQ(prompt_text(choice), "Hi");
  EXPECT_EQ(task.place(choice), file().string() + ":6");
}

TEST_F(TaskFile, PerplexityAndLimits) {
  const Task task = read(
      "{\"task\": {\"kind\": \"perplexity\", \"context\": 128, \"threshold\": 2.5}}\r\n"
      "{\"text\": \"one\"}\r\n{\"text\": \"two\"}");
  EXPECT_TRUE(task.is_perplexity());
  EXPECT_EQ(task.context, 128);
  EXPECT_EQ(task.items.at(1).text, "two");
  EXPECT_EQ(read("{\"kind\": \"perplexity\", \"text\": \"one\"}\nnot JSON\n", 1).items.size(), 1u);
}

TEST_F(TaskFile, ImagesHaveTheirPlaces) {
  io::write_file(dir() / "a.png", "x");
  fs::create_directories(dir() / "sub");
  io::write_file(dir() / "sub/b.png", "y");
  const std::string images =
      R"("images": ["a.png", {"path": "sub/b.png"}, {"data": "Zm9v"}], "kind": "numeric", "answer": 1})";
  const Item before = item(R"({"prompt": "How many?", )" + images);
  EXPECT_EQ(prompt_text(before), "<image><image><image>How many?");
  ASSERT_EQ(before.images.size(), 3u);
  EXPECT_EQ(before.images[0].file, fs::canonical(dir() / "a.png"));
  EXPECT_EQ(before.images[1].file, fs::canonical(dir() / "sub/b.png"));
  EXPECT_EQ(before.images[2].bytes, "foo");
  const Item within = item(R"({"prompt": "<image>, <image> and <image>?", )" + images);
  ASSERT_EQ(within.messages[0].parts.size(), 6u);
  EXPECT_EQ(std::get<text::ImagePart>(within.messages[0].parts[2]).image, 1u);
  EXPECT_THAT(error(R"({"prompt": "only <image>", )" + images), HasSubstr("3 images and 1 places"));
  // Without images the same letters are text.
  EXPECT_EQ(item(R"({"prompt": "What is <image>?", "kind": "numeric", "answer": 1})").messages[0].parts.size(), 1u);
}

TEST_F(TaskFile, MessagesMayHoldImages) {
  io::write_file(dir() / "a.png", "x");
  const Item chat = item(
      R"({"kind": "exact_match", "answer": "ok", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"},)"
      R"( {"role": "user", "content": [{"type": "text", "text": "See "}, {"type": "image", "path": "a.png"}]}]})");
  EXPECT_EQ(prompt_text(chat), "user: Hi\nassistant: Yes?\nuser: See <image>");
  EXPECT_EQ(chat.images.size(), 1u);
}

TEST_F(TaskFile, ErrorsNameFileLineAndRemedy) {
  const auto numeric = [](const std::string& more) { return R"({"kind": "numeric", "answer": 1, )" + more + "}"; };
  EXPECT_THAT(error("{\"kind\": \"numeric\", \"prompt\": \"x\", \"answer\": 1}\n{oops\n"), HasSubstr("t.jsonl:2]"));
  EXPECT_THAT(error(numeric(R"("promt": "x")")), HasSubstr("did you mean 'prompt'?"));
  EXPECT_THAT(error(numeric(R"("prompt": "x", "tolerence": 1)")), HasSubstr("did you mean 'tolerance'?"));
  EXPECT_THAT(error(numeric(R"("prompt": "x", "choices": ["a", "b"])")), HasSubstr("of an item of kind numeric"));
  EXPECT_THAT(error(R"({"kind": "numerik", "prompt": "x", "answer": 1})"), HasSubstr("did you mean 'numeric'?"));
  EXPECT_THAT(error(R"({"prompt": "x", "answer": 1})"), HasSubstr("'kind' is missing"));
  EXPECT_THAT(error(R"({"task": {"titel": "x"}})"), HasSubstr("did you mean 'title'?"));
  EXPECT_THAT(error(R"({"task": {}, "kind": "numeric"})"), HasSubstr("'task' alone"));
  EXPECT_THAT(error(numeric(R"("prompt": "x")") + "\n{\"task\": {}}"), HasSubstr("first line"));
  EXPECT_THAT(error("[1]"), HasSubstr("array; expected an object"));
  EXPECT_THAT(error(""), HasSubstr("no items"));
  EXPECT_THAT(error(R"({"task": {"kind": "numeric"}})"), HasSubstr("no items"));
  EXPECT_THAT(error(numeric(R"("prompt": "x", "max_tokens": 0)")), HasSubstr("whole number from 1"));
  EXPECT_THAT(error(numeric(R"("prompt": "x", "max_tokens": 18446744073709551615)")), HasSubstr("whole number"));
  EXPECT_THAT(error(numeric(R"("prompt": "x", "tolerance": -1)")), HasSubstr("not be negative"));
  EXPECT_THAT(error(numeric(R"("prompt": 3)")), HasSubstr("expected a string"));
  EXPECT_THAT(error(numeric(R"("prompt": "x", "messages": [])")), HasSubstr("either"));
  EXPECT_THAT(error(numeric(R"("messages": [{"role": "robot", "content": ""}])")), HasSubstr("role 'robot'"));
  EXPECT_THAT(error(numeric(R"("messages": [{"role": "assistant", "content": ""}])")), HasSubstr("last message"));
  EXPECT_THAT(error(numeric(R"("messages": [{"role": "user", "content": ""}], "format": "raw")")), HasSubstr("'raw'"));
  EXPECT_THAT(error(R"({"kind": "multiple_choice", "prompt": "x", "choices": ["a"], "answer": 0})"),
              HasSubstr("at least 2"));
  EXPECT_THAT(error(R"({"kind": "multiple_choice", "prompt": "x", "choices": ["a", "b"], "answer": 2})"),
              HasSubstr("from 0 to 1"));
  EXPECT_THAT(error(R"({"kind": "multiple_choice", "prompt": "x", "choices": ["a", "b"], "answer": "c"})"),
              HasSubstr("none of the choices"));
  EXPECT_THAT(error(R"({"kind": "multiple_choice", "prompt": "x", "choices": ["a", ""], "answer": 0})"),
              HasSubstr("empty"));
  EXPECT_THAT(error(R"({"kind": "exact_match", "prompt": "x", "answer": "?"})"), HasSubstr("nothing is left"));
  EXPECT_THAT(error(R"({"kind": "exact_match", "prompt": "x"})"), HasSubstr("'answer' or 'answers'"));
  EXPECT_THAT(error(R"({"kind": "contains", "prompt": "x"})"), HasSubstr("'contains' is missing"));
  EXPECT_THAT(error(R"({"kind": "contains", "prompt": "x", "contains": [[]]})"), HasSubstr("1 to 1000 strings"));
  EXPECT_THAT(error(R"({"kind": "numeric", "prompt": "x", "answer": "4"})"), HasSubstr("expected a number"));
  EXPECT_THAT(error(R"({"task": {"kind": "numeric", "threshold": 95}})"
                    "\n" +
                    numeric(R"("prompt": "x")")),
              HasSubstr("between 0 and 1"));
  EXPECT_THAT(error(numeric(R"("prompt": "x")") + "\n"
                                                  R"({"kind": "perplexity", "text": "x"})"),
              HasSubstr("another file"));
  EXPECT_THAT(error("{\"kind\": \"numeric\", \"prompt\": \"\xFF\", \"answer\": 1}"), HasSubstr("t.jsonl:1]"));
  std::string longest(17 << 20, 'x');
  EXPECT_THAT(error(longest), HasSubstr("the limit is 16777216"));
}

TEST_F(TaskFile, ImagesStayInTheDirectory) {
  io::write_file(dir() / "../outside.png", "x");
  fs::create_symlink("../outside.png", dir() / "link.png");
  fs::create_directory(dir() / "folder");
  const auto with = [&](const std::string& image) {
    return error(fmt::format(R"({{"kind": "numeric", "answer": 1, "prompt": "x", "images": [{}]}})", image));
  };
  EXPECT_THAT(with(R"("../outside.png")"), HasSubstr("outside the task's directory"));
  EXPECT_THAT(with(R"("link.png")"), HasSubstr("outside the task's directory"));
  EXPECT_THAT(with(fmt::format("\"{}\"", (dir() / "../outside.png").string())),
              HasSubstr("outside the task's directory"));
  EXPECT_THAT(with(R"("folder")"), HasSubstr("is not a file"));
  EXPECT_THAT(with(R"("none.png")"), HasSubstr("is not there"));
  EXPECT_THAT(with(R"("")"), HasSubstr("is not a file"));
  EXPECT_THAT(with(R"("a\u0000b")"), HasSubstr("is not there"));
  EXPECT_THAT(with(R"({"path": "a.png", "data": "Zm9v"})"), HasSubstr("either 'path' or 'data'"));
  EXPECT_THAT(with(R"({"data": "***"})"), HasSubstr("not base64"));
  EXPECT_THAT(with(R"({"dta": "Zm9v"})"), HasSubstr("did you mean 'data'?"));
  std::string many = R"({"data": "Zm9v"})";
  for (int i = 0; i < 48; ++i) many += R"(, {"data": "Zm9v"})";
  EXPECT_THAT(with(many), HasSubstr("at most 48"));
}

TEST_F(TaskFile, AreFoundBesideTheModelByName) {
  const fs::path model = dir() / "model";
  EXPECT_TRUE(shipped_tasks(model).empty());
  fs::create_directories(model / "eval");
  for (const char* name : {"sums.jsonl", "about.jsonl", "notes.txt"}) io::write_file(model / "eval" / name, "x");
  EXPECT_THAT(shipped_tasks(model), ElementsAre(model / "eval/about.jsonl", model / "eval/sums.jsonl"));
  EXPECT_EQ(find_task("sums", model), model / "eval/sums.jsonl");
  EXPECT_EQ(find_task((model / "eval/notes.txt").string(), model), model / "eval/notes.txt");
  try {
    find_task("sum", model);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("did you mean 'sums'?"));
  }
}

}  // namespace
}  // namespace puna::eval
