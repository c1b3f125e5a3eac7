#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <functional>
#include <memory>

#include "base/env.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/suggest.h"
#include "cli/commands.h"
#include "cli/conversation.h"
#include "cli/engine_options.h"
#include "cli/line_reader.h"
#include "cli/options.h"
#include "cli/terminal.h"

namespace puna::cli {
namespace {

struct ChatFlags {
  ModelOptions model;
  SamplingOptions sampling;
  EngineFlags engine;
  GrammarOptions grammar;
  std::string system, session;
  int64_t max_tokens = 1024, context = 8192;
};

// One run of `puna chat`: the conversation, and what the slash commands do to it.
class Chat {
 public:
  Chat(const engine::LoadedModel& loaded, const ChatFlags& flags, const engine::EngineOptions& engine,
       std::optional<grammar::Source> grammar)
      : loaded_(loaded), conversation_(loaded, engine), style_(terminal_style()), reader_(make_reader()) {
    options_.sampling = resolve(flags.sampling, loaded.defaults);
    options_.grammar = compile_grammar(std::move(grammar), loaded);
    options_.max_tokens = flags.max_tokens;
    options_.cancel = &interrupt_.flag();
    options_.on_text = [](std::string_view piece) { print_now(for_screen(piece)); };
    conversation_.set_system(flags.system);
    if (!flags.session.empty()) open_session(flags.session);
  }

  /// Turns until the end of input or /quit; 1 when standard input is no terminal and something failed.
  int run() {
    note(fmt::format("{}; /help lists the commands, Ctrl-D ends.", loaded_.name));
    try {
      read_and_answer();
    } catch (const Exit&) {
      save_session();
      throw;
    }
    save_session();
    return failed_ && isatty(STDIN_FILENO) != 1 ? 1 : 0;
  }

 private:
  struct Command {
    const char *name, *argument, *help;
    void (Chat::*run)(const std::string& argument);
  };
  static const std::array<Command, 8> kCommands;

  std::unique_ptr<LineReader> make_reader() {
    const auto state = env::state_home();
    if (!state || isatty(STDIN_FILENO) != 1) return make_line_reader(interrupt_, style_, std::nullopt);
    const std::filesystem::path dir = std::filesystem::path(*state) / "puna";
    std::error_code error;  // without a place for history there is none
    std::filesystem::create_directories(dir, error);
    return make_line_reader(interrupt_, style_, error ? std::nullopt : std::optional(dir / "chat_history"));
  }

  void read_and_answer() {
    std::string message;
    while (!done_) {
      stop_if_terminated();
      interrupt_.reset();
      const ReadStatus status = read_message(*reader_, message);
      stop_if_terminated();
      if (status == ReadStatus::kEnd) break;
      if (status == ReadStatus::kInterrupted || message.find_first_not_of(" \t\n") == std::string::npos) continue;
      try {
        message.starts_with('/') && !message.starts_with("//") ? command(message) : turn(message);
      } catch (const Error& error) {
        failed_ = true;
        fmt::print(stderr, "{}{}{}\n", style_.error, error.what(), style_.reset);
      }
    }
  }

  // Ctrl-C ends an answer or a line; SIGTERM ends the chat.
  static void stop_if_terminated() {
    if (const int status = interrupt_status(); status == 143) throw Exit{status};
  }

  // What only a person at a terminal wants to read.
  void note(const std::string& text) const {
    if (isatty(STDOUT_FILENO) == 1) print_now(style_.note + text + style_.reset + "\n");
  }

  static std::filesystem::path cache_of(const std::filesystem::path& session) { return session.string() + ".cache"; }

  // Without its cache a conversation is read again, which takes time and changes nothing.
  void with_cache(const char* what, const std::function<void()>& call) const {
    try {
      call();
    } catch (const Error& error) {
      say_aside(fmt::format("{}: {}", what, error.what()));
    }
  }

  void open_session(const std::filesystem::path& file) {
    session_ = file;
    if (!std::filesystem::exists(file)) return;
    conversation_.load(file);
    if (std::filesystem::exists(cache_of(file)))
      with_cache("the conversation will be read again", [&] { conversation_.load_cache(cache_of(file)); });
    note(fmt::format("({} messages)", conversation_.num_messages()));
  }

  void save_session() {
    if (session_.empty()) return;
    conversation_.save(session_);
    if (conversation_.num_messages() == 0) return;
    with_cache("the cache was not saved", [&] { conversation_.save_cache(cache_of(session_)); });
  }

  void turn(const std::string& message) {
    auto progress = std::make_unique<Progress>("reading", 0);
    options_.on_prefill = [&](int64_t done, int64_t total) {
      progress->set(done);
      if (done == total) progress.reset();
    };
    const std::string text = message.starts_with("//") ? message.substr(1) : message;
    last_ = conversation_.say(text, options_);
    options_.sampling.seed += 1;  // the next answer draws anew, and a given seed still repeats the conversation
    print_now("\n");
    if (last_.reason == engine::StopReason::kCancelled) note("(stopped)");
    if (last_.reason == engine::StopReason::kMaxTokens) note("(cut at --max-tokens)");
    if (last_.reason == engine::StopReason::kContextFull) note("(the context is full; /reset starts anew)");
  }

  void command(const std::string& line) {
    const size_t space = line.find_first_of(" \t");
    const std::string name = line.substr(0, space);
    const size_t begin = space == std::string::npos ? space : line.find_first_not_of(" \t", space);
    const std::string argument = begin == std::string::npos ? "" : line.substr(begin);
    std::vector<std::string> names;
    for (const Command& command : kCommands) {
      if (name == command.name) return (this->*command.run)(argument);
      names.push_back(command.name);
    }
    const std::string nearest = nearest_name(name, names);
    fail("chat", "no command {}{}; /help lists them, // begins a message with a slash", name,
         nearest.empty() ? "" : fmt::format(", did you mean {}?", nearest));
  }

  static void require(const std::string& argument, const char* what) {
    if (argument.empty()) fail("chat", "{} is missing; /help shows how", what);
  }

  void help(const std::string&) {
    for (const Command& command : kCommands)
      print_now(fmt::format("{:<8} {:<6} {}\n", command.name, command.argument, command.help));
    print_now(
        "A line that ends in \\ goes on; \"\"\" opens and closes a block of lines. Ctrl-C stops an answer, Ctrl-D "
        "ends.\n");
  }
  void image(const std::string& argument) {
    require(argument, "the image file");
    conversation_.add_image(argument);
    note("(image added to your next message)");
  }
  void system(const std::string& argument) {
    conversation_.set_system(argument);
    note(argument.empty() ? "(no system message)" : "(system message set)");
  }
  void reset(const std::string&) {
    conversation_.reset();
    note("(conversation forgotten)");
  }
  void save(const std::string& argument) {
    require(argument, "the file");
    conversation_.save(argument);
    note("(saved to " + argument + ")");
  }
  void load_file(const std::string& argument) {
    require(argument, "the file");
    conversation_.load(argument);
    note(fmt::format("({} messages)", conversation_.num_messages()));
  }
  void stats(const std::string&) {
    const engine::EngineStats stats = conversation_.engine().stats();
    print_now(
        fmt::format("messages {}, images {}\ncontext {} tokens, cache {}\nlast answer: {} tokens at {:.1f}/s; prompt "
                    "{} tokens, {} of them "
                    "from the cache, the rest in {:.0f} ms\nmemory {} resident, {} available\n",
                    conversation_.num_messages(), conversation_.num_images(),
                    last_.prompt_tokens + std::ssize(last_.tokens), format_bytes(stats.used_bytes + stats.cached_bytes),
                    last_.tokens.size(), last_.decode_tokens_per_second(), last_.prompt_tokens, last_.reused_tokens,
                    last_.prefill_ms, format_bytes(resident_memory_bytes()), format_bytes(available_memory_bytes())));
    if (stats.drafted_tokens > 0)
      print_now(fmt::format("guesses {}, {} of them right\n", stats.drafted_tokens, stats.accepted_tokens));
    if (const experts::ExpertStore* store = loaded_.model->expert_store()) print_now(store->statistics().text() + "\n");
  }
  void quit(const std::string&) { done_ = true; }

  const engine::LoadedModel& loaded_;
  Conversation conversation_;
  InterruptGuard interrupt_;
  Style style_;
  std::unique_ptr<LineReader> reader_;
  engine::GenerateOptions options_;
  engine::Generation last_;
  std::filesystem::path session_;  // empty: none
  bool done_ = false, failed_ = false;
};

const std::array<Chat::Command, 8> Chat::kCommands = {{
    {"/help", "", "this list", &Chat::help},
    {"/image", "FILE", "put a JPEG, PNG or WebP image before your next message", &Chat::image},
    {"/system", "TEXT", "set the system message; without TEXT: none", &Chat::system},
    {"/reset", "", "forget the conversation", &Chat::reset},
    {"/save", "FILE", "save the conversation as JSON", &Chat::save},
    {"/load", "FILE", "load a saved conversation", &Chat::load_file},
    {"/stats", "", "tokens, speed, memory", &Chat::stats},
    {"/quit", "", "end (also Ctrl-D)", &Chat::quit},
}};

void run_chat(const ChatFlags& flags) {
  if (flags.model.model.empty() && !shipped_model()) {
    fmt::print(stderr,
               "No model given: ./puna chat --model DIR, where DIR holds a Llama 4 checkpoint (config.json beside its "
               "weights), or a .gguf file.\n"
               "To try without one: ./puna demo-model writes a tiny random model to talk to.\n");
    throw Exit{1};
  }
  std::optional<grammar::Source> grammar = read_grammar(flags.grammar);
  const engine::LoadedModel loaded = load(flags.model, flags.context);
  const EngineSetup setup(flags.engine, loaded, flags.context);
  if (const int status = Chat(loaded, flags, setup.options(), std::move(grammar)).run(); status != 0)
    throw Exit{status};
}

}  // namespace

void add_chat(CLI::App& app) {
  auto flags = std::make_shared<ChatFlags>();
  CLI::App* command = app.add_subcommand("chat", "Talk to a model");
  add_model_options(*command, flags->model);
  command->add_option("--system", flags->system, "System message")->type_name("TEXT");
  command
      ->add_option("--session", flags->session,
                   "Go on with the conversation of this file; it is saved there at the end, its cache in FILE.cache")
      ->type_name("FILE");
  command->add_option("--max-tokens", flags->max_tokens, "Tokens of an answer at most")
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--context", flags->context, "Tokens that must fit in memory")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->type_name("N")
      ->capture_default_str();
  add_sampling_options(*command, flags->sampling);
  add_engine_options(*command, flags->engine);
  add_grammar_options(*command, flags->grammar);
  command->footer("Example:\n  puna chat --model ./scout --system 'Be brief.'\nWithin: /help lists the commands.");
  command->callback([flags] { run_chat(*flags); });
}

}  // namespace puna::cli
