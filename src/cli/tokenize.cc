#include <unistd.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/terminal.h"
#include "io/file.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace puna::cli {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{1} << 30;

struct TokenizeFlags {
  std::string model, file, specials = "text";
  std::optional<std::string> text;
  bool decode = false, json = false, count = false;
};

std::string read_input(const TokenizeFlags& flags) {
  if (flags.text) return *flags.text;
  if (!flags.file.empty()) return io::read_file(flags.file, kMaxFileBytes);
  if (isatty(STDIN_FILENO) == 1) fmt::print(stderr, "Type the text; Ctrl-D on an empty line ends it.\n");
  return read_standard_input();
}

/// Ids between blanks, commas and brackets, so that what --json and the plain output print can be read back.
std::vector<text::TokenId> parse_ids(std::string_view text) {
  std::vector<text::TokenId> ids;
  while (true) {
    const size_t start = text.find_first_not_of(" \t\r\n,[]");
    if (start == std::string_view::npos) return ids;
    text.remove_prefix(start);
    const std::string_view word = text.substr(0, text.find_first_of(" \t\r\n,[]"));
    text::TokenId id = 0;
    const auto [end, ec] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (ec != std::errc() || end != word.data() + word.size())
      fail("tokenize --decode", "'{}' is not a token id", word.substr(0, 40));
    ids.push_back(id);
    text.remove_prefix(word.size());
  }
}

void run_tokenize(const TokenizeFlags& flags) {
  if (flags.text && !flags.file.empty()) throw UsageError("--text", "and --file exclude each other");
  const auto tokenizer = text::Tokenizer::open(flags.model);
  const std::string input = read_input(flags);
  std::vector<text::TokenId> ids;
  if (flags.decode)
    ids = parse_ids(input);
  else
    ids = tokenizer->encode(input, flags.specials == "parse" ? text::Specials::kParse : text::Specials::kAsText);

  if (flags.json) {
    Json json = {{"count", ids.size()}, {"ids", ids}};
    if (flags.decode) {
      json["text"] = text::replace_invalid_utf8(tokenizer->decode(ids));
    } else {
      json["tokens"] = Json::array();
      for (text::TokenId id : ids) json["tokens"].push_back(text::replace_invalid_utf8(tokenizer->token_bytes(id)));
    }
    print_now(json.dump() + "\n");
  } else if (flags.count) {
    print_now(fmt::format("{}\n", ids.size()));
  } else if (flags.decode) {
    const std::string bytes = tokenizer->decode(ids);  // exact in a file or pipe
    print_now(isatty(STDOUT_FILENO) == 1 ? for_screen(text::replace_invalid_utf8(bytes)) : bytes);
  } else {
    print_now(fmt::format("{}\n", fmt::join(ids, " ")));
  }
}

}  // namespace

void add_tokenize(CLI::App& app) {
  auto flags = std::make_shared<TokenizeFlags>();
  CLI::App* command = app.add_subcommand("tokenize", "Text to token ids and back");
  command->add_option("--model", flags->model, "Model directory, tokenizer.json, .gguf, or Meta's tokenizer.model")
      ->type_name("PATH")
      ->required();
  command->add_option("--text", flags->text, "The text; without it and --file: standard input")->type_name("TEXT");
  command->add_option("--file", flags->file, "File with the text")->type_name("FILE");
  command
      ->add_option("--specials", flags->specials,
                   "Names such as <|eot|> in the text: 'text' leaves them text, 'parse' makes them special tokens")
      ->type_name("text|parse")
      ->check(CLI::IsMember({"text", "parse"}))
      ->capture_default_str();
  command->add_flag("--decode", flags->decode, "The input is token ids; print their text");
  command->add_flag("--count", flags->count, "Print the number of tokens alone");
  command->add_flag("--json", flags->json, "One JSON object: count, ids, and each token's text");
  command->footer("Example:\n  puna tokenize --model ./scout --text 'Hello, world!'");
  command->callback([flags] { run_tokenize(*flags); });
}

}  // namespace puna::cli
