// `puna eval` as a user meets it, and the model that is used when none is named.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "base/json.h"
#include "io/file.h"
#include "tests/cli/support.h"
#include "tests/support/golden.h"

namespace puna::cli {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kChoices =
    R"({"task": {"kind": "multiple_choice", "title": "Which is likelier", "threshold": 0.5, "format": "raw"}}
{"prompt": "a", "choices": ["b", "a long choice of many bytes"], "answer": 0}
{"prompt": "c", "choices": ["d", "another long choice of many bytes"], "answer": 0}
{"prompt": "e", "choices": ["f", "and a third long choice of many bytes"], "answer": 1}
)";
constexpr const char* kSums =
    R"({"task": {"kind": "numeric", "threshold": 1, "max_tokens": 3}}
{"id": "sum", "prompt": "1+1?", "answer": 2.125})";

class EvalCommand : public testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) {
    fs::create_directories((dir_.path() / name).parent_path());
    io::write_file(dir_.path() / name, text);
    return (dir_.path() / name).string();
  }
  // A model with tasks of its own.
  std::string model_with_tasks() {
    fs::copy(demo(), dir_.path() / "model");
    write("model/eval/choices.jsonl", kChoices);
    write("model/eval/sums.jsonl", kSums);
    return (dir_.path() / "model").string();
  }
  fs::path dir() const { return dir_.path(); }

 private:
  test::TemporaryDirectory dir_;
};

TEST_F(EvalCommand, TableAndJsonAgree) {
  const auto arguments = on_demo("eval", {"--task", write("choices.jsonl", kChoices)});
  const Outcome table = puna(arguments);
  ASSERT_EQ(table.status, 0) << table.err;
  auto as_json = arguments;
  as_json.push_back("--json");
  const Json json = Json::parse(puna(as_json).out);
  ASSERT_EQ(json["tasks"].size(), 1u);
  const Json& task = json["tasks"][0];
  EXPECT_EQ(task["name"], "choices");
  EXPECT_EQ(task["items"], 3);
  EXPECT_EQ(task["partial"], false);
  EXPECT_EQ(task["target"], 0.5);
  EXPECT_EQ(task["met"], true);
  // Of random logits the choice of one byte is likelier than a long one: 2 of 3 are right.
  EXPECT_NEAR(task["measures"]["accuracy"]["value"].get<double>(), 2.0 / 3, 1e-12);
  EXPECT_NEAR(task["measures"]["accuracy"]["interval"][0].get<double>(), 0.2077, 1e-4);
  EXPECT_THAT(table.out, HasSubstr("66.7 %"));
  EXPECT_THAT(table.out, HasSubstr("20.8 .. 93.9 %"));
  EXPECT_THAT(table.out, HasSubstr(">= 50 % met"));
  EXPECT_THAT(table.out, HasSubstr("Which is likelier"));
}

TEST_F(EvalCommand, TheTasksOfAModelRunWithItsNameAlone) {
  const std::string model = model_with_tasks();
  const Outcome all = puna({"eval", model});
  EXPECT_EQ(all.status, 0) << all.err;
  EXPECT_THAT(all.out, HasSubstr("choices"));
  EXPECT_THAT(all.out, HasSubstr("sums"));
  EXPECT_THAT(all.out, HasSubstr(">= 100 % not met"));
  EXPECT_EQ(puna({"eval", model, "--check"}).status, 1);
  EXPECT_EQ(puna({"eval", model, "--check", "--task", "choices"}).status, 0);
  const Outcome one = puna({"eval", "--model", model, "--task", "sums"});
  EXPECT_EQ(one.status, 0) << one.err;
  EXPECT_THAT(one.out, Not(HasSubstr("choices")));
  expect_error(puna({"eval", model, "--task", "sum"}), 1, "did you mean 'sums'?");
  expect_error(puna({"eval", demo().string()}), 1, "--task FILE");
  expect_error(puna({"eval", model, "--model", model}), 2, "given twice");
}

TEST_F(EvalCommand, ItemsAreWrittenOneALine) {
  const std::string out = (dir() / "out.jsonl").string();
  const Outcome outcome = puna(on_demo("eval", {"--task", write("choices.jsonl", kChoices), "--task",
                                                write("sums.jsonl", kSums), "--items", out, "--limit", "2"}));
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  std::istringstream lines(io::read_file(out, 1 << 20));
  std::vector<Json> items;
  for (std::string line; std::getline(lines, line);) items.push_back(Json::parse(line));
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(items[0]["prompt"], "a");
  EXPECT_EQ(items[0]["line"], 2);
  EXPECT_EQ(items[0]["log_likelihoods"].size(), 2u);
  EXPECT_EQ(items[0]["right"], true);
  EXPECT_EQ(items[2]["id"], "sum");
  EXPECT_EQ(items[2]["expected"], 2.125);
  EXPECT_EQ(items[2]["right"], false);
  EXPECT_LT(items[2]["log_likelihood"].get<double>(), 0);
}

TEST_F(EvalCommand, MistakesAreOneLine) {
  const std::string task = write("t.jsonl", kSums);
  expect_error(puna(on_demo("eval", {"--task", "/no/such.jsonl"})), 1, "/no/such.jsonl");
  expect_error(puna(on_demo("eval", {"--task", write("bad.jsonl", "{\"kind\": 3}")})), 1, "bad.jsonl:1");
  expect_error(puna(on_demo("eval", {"--task", task, "--items", "/no/such/dir/out.jsonl"})), 1, "/no/such/dir");
  expect_error(puna(on_demo("eval", {"--task", task, "--needle"})), 2, "--needle");
  expect_error(puna(on_demo("eval", {"--task", task, "--plot", "a.svg"})), 2, "--needle");
  expect_error(puna(on_demo("eval", {"--needle", "--plot", "a.gif"})), 2, ".svg or .png");
  expect_error(puna(on_demo("eval", {"--needle", "--check"})), 2, "--check");
  expect_error(puna(on_demo("eval", {"--needle", "--depths", "101"})), 2, "101");
  expect_error(puna(on_demo("eval", {"--needle", "--lengths", "30"})), 2, "too few");
  expect_error(puna(on_demo("eval", {"--needle", "--lengths", "99999999", "--no-memory-check"})), 2, "context");
  expect_error(puna({"eval"}), 2, "--model");
}

TEST_F(EvalCommand, NeedleGivesTableJsonItemsAndPicture) {
  const fs::path picture = dir() / "needle.svg", items = dir() / "items.jsonl";
  const auto arguments = on_demo("eval", {"--needle", "--lengths", "150,300", "--depths", "0,50,100", "--trials", "1",
                                          "--plot", picture.string(), "--items", items.string()});
  const Outcome table = puna(arguments);
  ASSERT_EQ(table.status, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("150 tokens"));
  EXPECT_THAT(table.out, HasSubstr("found 0 of 6"));
  EXPECT_THAT(io::read_file(picture, 1 << 20), HasSubstr("depth of the fact"));
  const std::string lines = io::read_file(items, 1 << 20);
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 6);
  auto as_json = arguments;
  as_json.push_back("--json");
  const Json json = Json::parse(puna(as_json).out);
  EXPECT_EQ(json["needle"]["cells"].size(), 6u);
  EXPECT_EQ(json["needle"]["trials"], 6);
}

TEST(ShippedModel, IsUsedWhenNoneIsNamedAndSaysSo) {
  const std::vector<std::string> generate = {"generate", "--prompt", "x", "--max-tokens", "2", "--seed", "1"};
  const Outcome outcome = with_shipped_model(demo(), generate);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr(demo().string()));
  EXPECT_THAT(outcome.err, HasSubstr("--model PATH"));
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  auto named = generate;
  named.insert(named.end(), {"--model", demo().string()});
  const Outcome quiet = with_shipped_model("/no/such/model", named);
  EXPECT_EQ(quiet.err, "");
  EXPECT_EQ(quiet.out, outcome.out);
  EXPECT_EQ(with_shipped_model(demo(), {"chat"}).status, 0);
  expect_error(with_shipped_model("/no/such/model", generate), 2, "--model");
}

}  // namespace
}  // namespace puna::cli
