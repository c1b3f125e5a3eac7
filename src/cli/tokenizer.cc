#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/terminal.h"
#include "engine/threads.h"
#include "text/bpe_trainer.h"
#include "text/special_names.h"
#include "text/tokenizer_write.h"
#include "text/training_text.h"
#include "text/vocabulary.h"

namespace puna::cli {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kNumBytes = 256;

struct TrainFlags {
  std::vector<std::string> inputs;
  std::string out, specials = "full";
  text::BpeOptions bpe;
  int64_t vocab_size = 0;
  int threads = 0;
  bool json = false;
};

std::vector<std::string> special_names(const TrainFlags& flags) {
  return flags.specials == "full" ? text::meta_special_names() : text::compact_special_names();
}

void check_vocab_size(const TrainFlags& flags) {
  const auto specials = std::ssize(special_names(flags)), most = static_cast<int64_t>(text::kMaxTokens);
  if (flags.vocab_size < kNumBytes + specials)
    throw UsageError("--vocab-size", fmt::format("{} is too small: {} bytes and {} special tokens alone are {}{}",
                                                 flags.vocab_size, kNumBytes, specials, kNumBytes + specials,
                                                 flags.specials == "full" ? "; --specials compact needs fewer" : ""));
  if (flags.vocab_size > most)
    throw UsageError("--vocab-size", fmt::format("{} is over the limit of {}", flags.vocab_size, most));
}

fs::path checked_out(const std::string& out) {
  fs::path dir = fs::path(out).lexically_normal();
  if (!dir.has_filename()) dir = dir.parent_path();
  if (!fs::exists(dir)) return dir;
  if (!fs::is_directory(dir)) fail(out, "is a file; name a directory with --out");
  if (!fs::is_empty(dir)) fail(out, "is not empty; choose another --out");
  return dir;
}

// The directory is made beside its place and renamed, so that it is there whole or not at all.
void write_whole(const fs::path& dir, const std::vector<std::string>& tokens,
                 const std::vector<std::string>& specials) {
  fs::path temporary = dir;
  temporary += fmt::format(".tmp.{}", getpid());
  std::error_code error;
  fs::create_directories(temporary, error);
  if (error) fail(dir.string(), "cannot be made: {}; choose another --out", error.message());
  try {
    text::write_tokenizer(temporary, tokens, specials);
    fs::rename(temporary, dir);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw;
  }
}

void report(const TrainFlags& flags, const text::TrainingFiles& files, const text::PieceCounts& pieces,
            const text::BpeResult& result, double seconds) {
  const int64_t bytes = pieces.num_bytes(), ranks = std::ssize(result.tokens);
  const double tokens_per_byte = static_cast<double>(result.text_tokens) / static_cast<double>(bytes);
  if (flags.json) {
    print_now(Json{{"out", flags.out},
                   {"vocab_size", flags.vocab_size},
                   {"ranks", ranks},
                   {"specials", flags.vocab_size - ranks},
                   {"files", files.files.size()},
                   {"files_left_out", files.left_out},
                   {"bytes", bytes},
                   {"pieces", pieces.num_pieces()},
                   {"distinct_pieces", pieces.num_distinct()},
                   {"tokens", result.text_tokens},
                   {"tokens_per_byte", tokens_per_byte},
                   {"seconds", seconds}}
                  .dump() +
              "\n");
    return;
  }
  print_now(fmt::format(
      "Read {} bytes of text in {} files{}: {} pieces, {} distinct.\n"
      "Learnt {} tokens in {:.1f} s; the text has {} tokens, {:.3f} a byte.\n"
      "Wrote {}: tokenizer.json, tokenizer.model ({} ranks), and {} special tokens after them.\n"
      "Next: ./puna tokenize --model {} --text 'Hello'\n",
      bytes, files.files.size(), files.left_out ? fmt::format(" ({} others are no text)", files.left_out) : "",
      pieces.num_pieces(), pieces.num_distinct(), ranks - kNumBytes, seconds, result.text_tokens, tokens_per_byte,
      flags.out, ranks, flags.vocab_size - ranks, flags.out));
}

void run_train(const TrainFlags& flags) {
  const auto start = std::chrono::steady_clock::now();
  check_vocab_size(flags);
  const fs::path dir = checked_out(flags.out);
  const std::vector<fs::path> paths(flags.inputs.begin(), flags.inputs.end());
  const auto specials = special_names(flags);
  const auto files = text::find_training_files(paths);
  const InterruptGuard interrupt;
  const int64_t threads = flags.threads > 0 ? flags.threads : engine::default_threads();
  const auto pieces = text::count_pieces(files, threads, &interrupt.flag());
  if (pieces.num_distinct() == 0) fail(flags.inputs.front(), "no text here; name files or directories that hold some");
  text::BpeOptions options = flags.bpe;
  options.interrupt = &interrupt.flag();
  options.num_tokens = flags.vocab_size - std::ssize(specials);
  const auto result = text::train_bpe(pieces, options);
  if (std::ssize(result.tokens) < options.num_tokens)
    fail("tokenizer train",
         "this text gives a vocabulary of {} tokens, not {}; give more text, a smaller --vocab-size or --min-frequency",
         std::ssize(result.tokens) + std::ssize(specials), flags.vocab_size);
  write_whole(dir, result.tokens, specials);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  report(flags, files, pieces, result, seconds.count());
}

void add_tokenizer_train(CLI::App& app) {
  auto flags = std::make_shared<TrainFlags>();
  CLI::App* command = app.add_subcommand("train", "Learn a vocabulary from text");
  command
      ->add_option("FILES", flags->inputs,
                   "Text files, *.jsonl (the strings of \"text\" and of the contents of \"messages\"), directories")
      ->type_name("PATH")
      ->required();
  command->add_option("--vocab-size", flags->vocab_size, "Tokens in all: 256 bytes, learnt ones, special ones")
      ->type_name("N")
      ->required();
  command->add_option("--out", flags->out, "Directory to write, absent or empty")->type_name("DIR")->required();
  command
      ->add_option("--specials", flags->specials,
                   "Special tokens: Meta's 2,048, or the 21 of them that chats, images and tools use")
      ->type_name("full|compact")
      ->check(CLI::IsMember({"full", "compact"}))
      ->capture_default_str();
  command->add_option("--min-frequency", flags->bpe.min_frequency, "Of a pair of tokens that may become one")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--max-token-bytes", flags->bpe.max_token_bytes, "Length of the longest token")
      ->type_name("N")
      ->check(CLI::Range(int64_t{2}, static_cast<int64_t>(text::kMaxTokenBytes)))
      ->capture_default_str();
  command->add_flag("--single-digits", flags->bpe.single_digits, "Each of the digits 0 to 9 stays a token alone");
  command->add_option("--threads", flags->threads, "CPU threads to read with; 0: one per core")
      ->type_name("N")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command->add_flag("--json", flags->json, "One JSON object about the text and the vocabulary");
  command->footer(
      "The pieces of the text are those of Llama 4's split pattern. DIR gets tokenizer.json, which Hugging Face's\n"
      "libraries load with the same ids, tokenizer_config.json, chat_template.jinja, and the ranks as "
      "tokenizer.model.\n"
      "Example:\n  puna tokenizer train --vocab-size 4096 --specials compact --out my-tokenizer docs notes.jsonl");
  command->callback([flags] { run_train(*flags); });
}

}  // namespace

void add_tokenizer(CLI::App& app) {
  CLI::App* command = app.add_subcommand("tokenizer", "Make a tokenizer");
  require_command(*command);
  add_tokenizer_train(*command);
  command->footer("Example:\n  puna tokenizer train --vocab-size 4096 --specials compact --out my-tokenizer docs");
}

}  // namespace puna::cli
