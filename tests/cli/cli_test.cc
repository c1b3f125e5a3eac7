// The command line as a user meets it: help, statuses, messages, and each command on the demo model.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>

#include "base/error.h"
#include "base/json.h"
#include "cli/demo_model.h"
#include "cli/run.h"
#include "io/file.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "tests/cli/support.h"
#include "tests/support/golden.h"

namespace puna::cli {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

Json generate_json(std::vector<std::string> more) {
  more.insert(more.end(), {"--json"});
  const Outcome outcome = puna(on_demo("generate", more));
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  return Json::parse(outcome.out);
}

fs::path write_image(const fs::path& path, int width, int height, uint8_t seed) {
  io::Image image{width, height, {}};
  for (int i = 0; i < 3 * width * height; ++i) image.rgb.push_back(static_cast<uint8_t>(i * 31 + seed));
  const auto png = io::encode_png(image);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(png.data()), static_cast<int64_t>(png.size()));
  return path;
}

// With PUNA_UPDATE_GOLDEN set, the files are written instead of compared.
TEST(Cli, HelpIsAsFrozen) {
  const fs::path dir = fs::path(PUNA_SOURCE_DIR) / "tests/golden/cli";
  for (const char* command :
       {"",       "chat",       "generate",  "serve",         "inspect",    "tokenize", "tokenizer", "tokenizer train",
        "data",   "data build", "data show", "data generate", "perplexity", "plot",     "eval",      "train",
        "export", "quantize",   "compare",   "convert",       "demo-model", "golden"}) {
    std::vector<std::string> arguments;
    std::istringstream words(command);
    for (std::string word; words >> word;) arguments.push_back(word);
    arguments.push_back("--help");
    const Outcome outcome = puna(arguments);
    EXPECT_EQ(outcome.status, 0) << command;
    EXPECT_TRUE(!*command || outcome.out.find("Example") != std::string::npos) << command << " shows no example";
    std::string name = *command ? command : "puna";
    std::replace(name.begin(), name.end(), ' ', '-');
    const fs::path file = dir / (name + ".txt");
    if (std::getenv("PUNA_UPDATE_GOLDEN")) {
      fs::create_directories(dir);
      io::write_file(file, outcome.out);
    }
    ASSERT_TRUE(fs::exists(file)) << file << " is missing; run with PUNA_UPDATE_GOLDEN=1";
    EXPECT_EQ(outcome.out, io::read_file(file, 1 << 20)) << "if this is meant, run with PUNA_UPDATE_GOLDEN=1";
  }
}

TEST(Cli, UsageErrorsAreOneLineWithStatusTwo) {
  EXPECT_EQ(puna({}).status, 2);
  expect_error(puna({"generat"}), 2, "did you mean 'generate'?");
  expect_error(puna({"generate", "--promt", "x"}), 2, "did you mean '--prompt'?");
  expect_error(puna({"generate", "--max-tokens", "many"}), 2, "many");
  expect_error(puna({"generate", "--model"}), 2, "--model");
  expect_error(puna({"generate", "--prompt", "x"}), 2, "--model");
  expect_error(puna(on_demo("generate", {"--prompt", "x", "--temperature", "-1"})), 2, "--temperature");
  expect_error(puna(on_demo("generate", {"--prompt", "x", "--temperature", "nan"})), 2, "--temperature");
  expect_error(puna(on_demo("generate", {"--prompt", "x", "--top-p", "7"})), 2, "--top-p");
  expect_error(puna(on_demo("generate", {"--prompt", "x", "--seed", "-1"})), 2, "--seed");
  expect_error(puna(on_demo("generate", {"--prompt", "x", "--max-tokens", "0"})), 2, "--max-tokens");
  expect_error(puna(on_demo("generate", {"--prompt", "x", "--threads", "9999999"})), 2, "--threads");
  expect_error(puna(on_demo("generate", {"--prompt", "x", "--device", "toaster"})), 2, "toaster");
  expect_error(puna(on_demo("generate", {"--prompt", "x", "--dtype", "int3"})), 2, "int3");
  expect_error(puna(on_demo("generate", {"--prompt", "x", "--stop", ""})), 2, "--stop");
  expect_error(puna(on_demo("generate", {"--prompt", "x", "--logprobs", "2"})), 2, "--json");
  expect_error(puna(on_demo("generate", {"--prompt", "x", "--raw", "--system", "y"})), 2, "--raw");
  EXPECT_EQ(puna({"--version"}).status, 0);
  const Outcome alone = puna({"data"});
  EXPECT_EQ(alone.status, 2);
  EXPECT_THAT(alone.err, HasSubstr("Subcommands:"));
  expect_error(puna({"bench", "train"}), 2, "run there as ./puna bench train; see puna bench --help");
  expect_error(puna({"test"}), 2, "runs there as ./puna test");
  expect_error(puna({"data", "biuld"}), 2, "[puna data] no command 'biuld'; did you mean 'build'?");
  expect_error(puna({"data", "show", "x", "--form", "1"}), 2, "did you mean '--from'?; see puna data show --help");
}

TEST(Cli, ErrorsAreOneLineWithStatusOne) {
  expect_error(puna({"generate", "--model", "/no/such", "--prompt", "x"}), 1, "/no/such");
  expect_error(puna(on_demo("generate", {"--prompt", "x", "--image", "/no/such.png"})), 1, "/no/such.png");
  expect_error(puna(on_demo("generate", {"--prompt", "x", "--image", (demo() / "config.json").string()})), 1,
               "config.json");
  expect_error(puna(on_demo("generate", {"--prompt", std::string(300'000, 'x')})), 1, "context");
  expect_error(puna(on_demo("generate", {"--prompt", "x", "--adapter", "/no/such"})), 1, "/no/such");
  expect_error(puna(on_demo("generate", {"--prompt", "x", "--tokenizer", "/no/such"})), 1, "/no/such");
  std::vector<std::string> many = {"--prompt", "x"};
  for (int i = 0; i < 49; ++i) many.insert(many.end(), {"--image", "a.png"});
  expect_error(puna(on_demo("generate", many)), 1, "48");
}

TEST(Cli, ChatWithoutAModelExplainsItselfInTwoLines) {
  const Outcome outcome = puna({"chat"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 2) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("--model DIR"));
  EXPECT_THAT(outcome.err, HasSubstr("./puna demo-model"));
}

TEST(Data, IsBuiltAndShownWithWhatIsLearned) {
  const test::TemporaryDirectory dir;
  write_image(dir.path() / "p.png", 30, 40, 1);
  io::write_file(dir.path() / "r.jsonl",
                 "{\"text\": \"see <image>\", \"images\": [\"p.png\"]}\n"
                 "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", "
                 "\"content\": \"yes\"}]}\n");
  const std::string out = (dir.path() / "set").string(), in = (dir.path() / "r.jsonl").string();
  const Outcome built = puna({"data", "build", "--model", demo().string(), "--out", out, in});
  ASSERT_EQ(built.status, 0) << built.err;
  EXPECT_THAT(built.out, HasSubstr("set: 2 documents, "));
  const Outcome shown = puna({"data", "show", out});
  ASSERT_EQ(shown.status, 0) << shown.err;
  EXPECT_THAT(shown.out, HasSubstr("<|begin_of_text|>[[see ]]<image "));
  EXPECT_THAT(shown.out, HasSubstr(" tiles>[[<|end_of_text|>]]\n"));
  EXPECT_THAT(shown.out, HasSubstr("<|header_start|>assistant<|header_end|>\n\n[[yes<|eot|>]]\n"));
  const Outcome json = puna({"data", "show", out, "--from", "1", "--count", "9", "--json"});
  const Json line = Json::parse(json.out);
  EXPECT_EQ(line["document"], 1);
  EXPECT_EQ(line["tokens"].size(), line["loss"].size());
  EXPECT_EQ(line["segments"][1], (Json{{"text", "yes<|eot|>"}, {"loss", true}}));
  expect_error(puna({"data", "show", out, "--from", "2"}), 1, "2 documents");
  expect_error(puna({"data", "show", dir.path().string()}), 1, "no dataset");
  expect_error(puna({"data", "build", "--out", out, in}), 2, "--tokenizer");
  expect_error(puna({"data", "build", "--tokenizer", (demo() / "tokenizer.json").string(), "--out", out + "2", in}), 1,
               "r.jsonl:1] has images, but the model has no vision");
}

TEST(Data, GeneratedRecordsCanBeBuilt) {
  const test::TemporaryDirectory dir;
  const std::string out = (dir.path() / "files").string();
  for (const char* kind : {"arithmetic", "pictures"}) {
    const Outcome made = puna({"data", "generate", kind, "--count", "5", "--split", "held-out", "--out", out});
    ASSERT_EQ(made.status, 0) << made.err;
    EXPECT_THAT(made.out, HasSubstr(std::string(kind) + "-held-out.jsonl: 5 records"));
  }
  const Outcome built =
      puna({"data", "build", "--model", demo().string(), "--out", (dir.path() / "set").string(), out});
  EXPECT_EQ(built.status, 0) << built.err;
  EXPECT_THAT(built.out, HasSubstr("set: 10 documents"));
  expect_error(puna({"data", "generate", "picturs", "--count", "5", "--out", out}), 1, "did you mean 'pictures'?");
}

TEST(DemoModel, IsTheSameForTheSameSeedAndSparesOtherDirectories) {
  const test::TemporaryDirectory dir;
  const std::string out = (dir.path() / "d").string();
  const auto weights = [&] { return io::read_file(dir.path() / "d/model.safetensors", 1 << 28); };
  ASSERT_EQ(puna({"demo-model", "--out", out, "--seed", "3"}).status, 0);
  const std::string first = weights();
  const Outcome again = puna({"demo-model", "--out", out, "--seed", "3"});
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_THAT(again.out, HasSubstr("puna chat --model " + out));
  EXPECT_EQ(weights(), first);
  ASSERT_EQ(puna({"demo-model", "--out", out, "--seed", "4"}).status, 0);
  EXPECT_NE(weights(), first);

  const fs::path mine = dir.path() / "mine";
  fs::create_directory(mine);
  io::write_file(mine / "thesis.txt", "years of work");
  expect_error(puna({"demo-model", "--out", mine.string()}), 1, "--force");
  EXPECT_EQ(std::distance(fs::directory_iterator(mine), {}), 1);
  EXPECT_EQ(puna({"demo-model", "--out", mine.string(), "--force"}).status, 0);
  EXPECT_TRUE(fs::exists(mine / "thesis.txt"));
  expect_error(puna({"demo-model", "--out", (mine / "thesis.txt").string()}), 1, "is a file");
}

TEST(Generate, SeedDecidesTheTextAndGreedyNeedsNone) {
  const auto text = [](std::vector<std::string> more) {
    more.insert(more.end(), {"--prompt", "Hello", "--max-tokens", "40", "--ignore-stop-tokens"});
    return generate_json(more)["text"].get<std::string>();
  };
  EXPECT_EQ(text({"--seed", "5"}), text({"--seed", "5"}));
  EXPECT_NE(text({"--seed", "5"}), text({"--seed", "6"}));
  EXPECT_EQ(text({"--temperature", "0"}), text({"--temperature", "0", "--seed", "9"}));
}

TEST(Generate, JsonSaysWhatHappened) {
  const Json json = generate_json({"--prompt", "Hi", "--max-tokens", "7", "--ignore-stop-tokens", "--logprobs", "3"});
  EXPECT_EQ(json["stop_reason"], "length");
  EXPECT_EQ(json["usage"]["completion_tokens"], 7);
  EXPECT_EQ(json["tokens"].size(), 7u);
  ASSERT_EQ(json["logprobs"].size(), 7u);
  for (size_t i = 0; i < 7; ++i) {
    EXPECT_EQ(json["logprobs"][i]["token"], json["tokens"][i]);
    EXPECT_EQ(json["logprobs"][i]["top"].size(), 3u);
    EXPECT_LE(json["logprobs"][i]["logprob"].get<double>(), json["logprobs"][i]["top"][0]["logprob"].get<double>());
  }
  EXPECT_GT(json["timings"]["decode_ms"].get<double>(), 0);
}

TEST(Generate, StopStringsEndTheTextBeforeThem) {
  const std::vector<std::string> base = {"--prompt",      "Hello", "--max-tokens",        "60",
                                         "--temperature", "0",     "--ignore-stop-tokens"};
  const std::string whole = generate_json(base)["text"];
  ASSERT_GT(whole.size(), 20u);
  for (const size_t at : {size_t{3}, whole.size() / 2}) {
    size_t begin = at;
    while ((static_cast<unsigned char>(whole[begin]) & 0xC0) == 0x80) ++begin;
    size_t end = begin + 5;
    while (end < whole.size() && (static_cast<unsigned char>(whole[end]) & 0xC0) == 0x80) ++end;
    const std::string stop = whole.substr(begin, end - begin);
    std::vector<std::string> arguments = base;
    arguments.insert(arguments.end(), {"--stop", stop});
    const Json json = generate_json(arguments);
    EXPECT_EQ(json["text"].get<std::string>(), whole.substr(0, whole.find(stop)));
    EXPECT_EQ(json["stop_reason"], "stop_string");
    EXPECT_EQ(json["stop"], stop);
  }
}

TEST(Generate, PromptFromStandardInputIsTheSameAsFromTheFlag) {
  const std::vector<std::string> common = {"--temperature", "0", "--max-tokens", "12"};
  auto with_flag = on_demo("generate", common);
  with_flag.insert(with_flag.end(), {"--prompt", "The same words"});
  EXPECT_EQ(puna(with_flag).out, puna(on_demo("generate", common), "The same words").out);
  auto dash = on_demo("generate", common);
  dash.insert(dash.end(), {"--prompt", "-"});
  EXPECT_EQ(puna(with_flag).out, puna(dash, "The same words").out);
}

TEST(Generate, SpecialTokensInAPromptStayText) {
  const auto tokens = [](const std::string& prompt) {
    return generate_json({"--prompt", prompt, "--max-tokens", "1"})["usage"]["prompt_tokens"].get<int64_t>();
  };
  EXPECT_EQ(tokens("<|eot|>") - tokens("x"), 6);  // the demo vocabulary has one token per byte
  EXPECT_EQ(tokens("\xFF\xFE") - tokens("x"), 1);
}

TEST(Generate, ImagesChangeTheAnswerAndManyAreAccepted) {
  const test::TemporaryDirectory dir;
  const auto answer = [&](const std::vector<fs::path>& images) {
    std::vector<std::string> arguments = {"--prompt",     "What?", "--temperature", "0",
                                          "--max-tokens", "1",     "--logprobs",    "5"};
    for (const fs::path& image : images) arguments.insert(arguments.end(), {"--image", image.string()});
    return generate_json(arguments);
  };
  const fs::path a = write_image(dir.path() / "a.png", 60, 40, 1), b = write_image(dir.path() / "b.png", 60, 40, 90);
  const Json with_a = answer({a}), with_b = answer({b}), both = answer({a, b});
  EXPECT_NE(with_a["logprobs"], with_b["logprobs"]);
  EXPECT_GT(both["usage"]["prompt_tokens"], with_a["usage"]["prompt_tokens"]);
  const Json most = answer(std::vector<fs::path>(48, a));
  EXPECT_EQ(most["usage"]["prompt_tokens"].get<int64_t>() - with_a["usage"]["prompt_tokens"].get<int64_t>(),
            47 * (both["usage"]["prompt_tokens"].get<int64_t>() - with_a["usage"]["prompt_tokens"].get<int64_t>()));
}

TEST(Chat, PipedLinesAreTurnsAndCommandsWork) {
  const test::TemporaryDirectory dir;
  const std::string saved = (dir.path() / "talk.json").string();
  const auto arguments = on_demo("chat", {"--temperature", "0", "--max-tokens", "5"});
  const Outcome first = puna(arguments, "Hello\nMore \\\nlines\n/save " + saved + "\n/stats\n/quit\nnever read\n");
  EXPECT_EQ(first.status, 0) << first.err;
  EXPECT_THAT(first.out, HasSubstr("messages 4"));
  const Json talk = read_json_file(saved);
  ASSERT_EQ(talk["messages"].size(), 4u);
  EXPECT_EQ(talk["messages"][2]["content"][0]["text"], "More \nlines");
  const Outcome loaded = puna(arguments, "/load " + saved + "\n/stats\n");
  EXPECT_EQ(loaded.status, 0) << loaded.err;
  EXPECT_THAT(loaded.out, HasSubstr("messages 4"));
  const Outcome reset = puna(arguments, "Hello\n/reset\n/stats\n");
  EXPECT_THAT(reset.out, HasSubstr("messages 0"));
}

TEST(Chat, BlocksOfLinesAndSlashesAreText) {
  const test::TemporaryDirectory dir;
  const std::string saved = (dir.path() / "talk.json").string();
  puna(on_demo("chat", {"--max-tokens", "2"}), "\"\"\"\n/help\nme\n\"\"\"\n//home\n/save " + saved + "\n");
  const Json talk = read_json_file(saved);
  ASSERT_EQ(talk["messages"].size(), 4u);
  EXPECT_EQ(talk["messages"][0]["content"][0]["text"], "/help\nme");
  EXPECT_EQ(talk["messages"][2]["content"][0]["text"], "/home");
}

TEST(Chat, BadCommandsAndFilesAreErrorsAndTheChatGoesOn) {
  const test::TemporaryDirectory dir;
  io::write_file(dir.path() / "odd.json",
                 R"({"format":"puna conversation 1","system":"","messages":[{"role":"user"}]})");
  const Outcome outcome = puna(on_demo("chat", {"--max-tokens", "2"}),
                               "/hlep\n/load /no/such\n/load " + (dir.path() / "odd.json").string() +
                                   "\n/image /no/such.png\n/save\nstill here\n/stats\n");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("did you mean /help?"));
  EXPECT_THAT(outcome.err, HasSubstr("/no/such.png"));
  EXPECT_THAT(outcome.err, HasSubstr("'content'"));
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 5) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("messages 2"));
}

TEST(Chat, ImagesComeBackFromASavedConversation) {
  const test::TemporaryDirectory dir;
  const fs::path image = write_image(dir.path() / "a.png", 50, 50, 4);
  const std::string saved = (dir.path() / "talk.json").string();
  const auto arguments = on_demo("chat", {"--temperature", "0", "--max-tokens", "4"});
  const Outcome once = puna(arguments, "/image " + image.string() + "\nWhat?\n/save " + saved + "\nAgain?\n");
  EXPECT_EQ(once.status, 0) << once.err;
  const Outcome resumed = puna(arguments, "/load " + saved + "\nAgain?\n");
  EXPECT_EQ(resumed.status, 0) << resumed.err;
  EXPECT_THAT(once.out, testing::EndsWith(resumed.out));
}

TEST(Perplexity, TextAndJsonAgreeAndPositionsAddUp) {
  const test::TemporaryDirectory dir;
  const fs::path text = dir.path() / "t.txt";
  io::write_file(text, "The quick brown fox jumps over the lazy dog, again and again and again.");
  const auto arguments = on_demo("perplexity", {"--text", text.string(), "--context", "24", "--by-position"});
  const Outcome table = puna(arguments);
  ASSERT_EQ(table.status, 0) << table.err;
  auto as_json = arguments;
  as_json.push_back("--json");
  const Json json = Json::parse(puna(as_json).out);
  EXPECT_EQ(json["tokens"], 71);
  EXPECT_THAT(table.out, HasSubstr(fmt::format("{:.4f}", json["perplexity"].get<double>())));
  double nll = 0;
  for (const Json& row : json["by_position"]) nll += row["mean_nll"].get<double>() * row["tokens"].get<double>();
  EXPECT_NEAR(nll, json["nll"].get<double>(), 1e-6);
  expect_error(puna(on_demo("perplexity", {"--text", "/no/such"})), 1, "/no/such");
  expect_error(puna(on_demo("perplexity", {})), 2, "--text");
}

TEST(Golden, WritesWhatTheGoldenFileHolds) {
  const test::TemporaryDirectory dir;
  const fs::path set = test::golden_data(), golden = set / "goldens/d_text/text.safetensors", out = dir.path() / "o";
  if (!fs::exists(golden)) GTEST_SKIP() << golden << " is not in this golden set";
  const std::vector<std::string> base = {
      "golden", "--ckpt", (set / "ckpt/d_text").string(), "--ids", golden.string(), "--out", out.string()};
  auto all = base;
  all.insert(all.end(), {"--all-keys"});
  const Outcome outcome = puna(all);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const io::TensorFile expected = io::open_safetensors(golden), mine = io::open_safetensors(out);
  for (const io::TensorView& tensor : expected.tensors()) {
    const io::TensorView* found = mine.find(tensor.name);
    ASSERT_NE(found, nullptr) << tensor.name;
    ASSERT_EQ(found->shape, tensor.shape) << tensor.name;
    if (tensor.dtype != DType::F32) continue;
    const auto floats = [](const io::TensorView& view) {
      return std::span(reinterpret_cast<const float*>(view.bytes.data()), view.bytes.size() / sizeof(float));
    };
    EXPECT_TRUE(test::all_close(floats(*found), floats(tensor), 2e-4)) << tensor.name;
  }
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), base.begin(), base.end());
    return puna(more);
  };
  expect_error(with({"--key", "ids.41"}), 1, "did you mean 'ids.40'?");
  expect_error(with({"--key", "logits.40"}), 1, "no token ids");
  expect_error(with({"--key", "ids.40", "--images", "a.png"}), 1, "text-only");
  expect_error(with({"--key", "ids.40", "--vision-trace"}), 2, "--vision-trace");
  expect_error(with({"--key", "ids.40", "--merged"}), 2, "--adapter");
}

TEST(Cli, TokenizerTrainWritesWhatTokenizeOpens) {
  const test::TemporaryDirectory dir;
  const std::string text = dir.path() / "text", out = dir.path() / "new" / "tokenizer";
  io::write_file(text, "the cat and the dog and the cat and the dog");
  const std::vector<std::string> command = {"tokenizer", "train", "--specials", "compact", "--vocab-size",
                                            "285",       "--out", out + "/",    "--json",  text};
  const Outcome outcome = puna(command);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const Json report = Json::parse(outcome.out);
  EXPECT_EQ(report["bytes"], 43);
  EXPECT_EQ(report["pieces"], 11);
  EXPECT_EQ(report["distinct_pieces"], 5);
  EXPECT_EQ(report["ranks"], 264);
  const Json ids = Json::parse(puna({"tokenize", "--model", out, "--file", text, "--json"}).out);
  EXPECT_EQ(ids["count"], report["tokens"]);
  expect_error(puna(command), 1, "is not empty; choose another --out");
}

TEST(Cli, TokenizerTrainErrorsLeaveNothing) {
  const test::TemporaryDirectory dir;
  const std::string text = dir.path() / "text", out = dir.path() / "out", empty = dir.path() / "empty";
  io::write_file(text, "abab abab");
  io::write_file(empty, "");
  const auto train = [&](const std::string& file, const std::string& size, const std::string& specials) {
    return puna({"tokenizer", "train", file, "--out", out, "--vocab-size", size, "--specials", specials});
  };
  expect_error(train(text, "276", "compact"), 2, "256 bytes and 21 special tokens alone are 277");
  expect_error(train(text, "2303", "full"), 2, "--specials compact needs fewer");
  expect_error(train(text, "9999999", "full"), 2, "over the limit");
  expect_error(train(text, "400", "compact"), 1, "gives a vocabulary of 279 tokens, not 400");
  expect_error(train(empty, "400", "compact"), 1, "no text here");
  expect_error(train(text + "x", "400", "compact"), 1, "no such file");
  EXPECT_FALSE(fs::exists(out));
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()), 2);
  EXPECT_EQ(train(text, "277", "compact").status, 0);
  expect_error(puna({"tokenizer", "trian"}), 2, "did you mean 'train'?; see puna tokenizer --help");
  expect_error(puna({"tokenizer", "train", text, "--out", out, "--vocab-size", "3", "--jsn"}), 2,
               "did you mean '--json'?");
  EXPECT_EQ(puna({"tokenizer"}).status, 2);
}

}  // namespace
}  // namespace puna::cli
