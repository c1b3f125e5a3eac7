#include "cli/run.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <new>
#include <system_error>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/suggest.h"
#include "cli/commands.h"
#include "cli/terminal.h"

namespace puna::cli {
namespace {

constexpr int kUsage = 2, kBug = 70, kClosedPipe = 141;

std::string did_you_mean(const std::string& name, const std::vector<std::string>& candidates) {
  const std::string nearest = nearest_name(name, candidates);
  return nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest);
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  return names;
}

// What the launcher does itself, of the words that the program does not know; "" for others.
std::string of_launcher(const std::string& path, const std::string& argument) {
  constexpr std::array kCommands = {"test", "format", "lint", "fuzz", "help-dev"};
  if (path == "puna bench")
    return fmt::format("; other benchmarks need the sources, and run there as ./puna bench {}", argument);
  const bool known = path == "puna" && std::ranges::find(kCommands, argument) != kCommands.end();
  return known ? fmt::format("; it needs the sources, and runs there as ./puna {}", argument) : "";
}

// Words before the first flag must be commands as long as there are any; CLI11's own message for this does not name the
// nearest one.
void check_command(const CLI::App& app, const std::vector<std::string>& arguments) {
  const CLI::App* level = &app;
  std::string path = "puna";
  for (const std::string& argument : arguments) {
    const auto names = command_names(*level);
    if (names.empty() || argument.starts_with("-")) return;
    if (std::find(names.begin(), names.end(), argument) == names.end())
      throw UsageError(path, fmt::format("no command '{}'{}{}; see {} --help", argument, did_you_mean(argument, names),
                                         of_launcher(path, argument), path));
    level = level->get_subcommand(argument);
    path += " " + argument;
  }
}

// The command that was given, its words joined by blanks in `name`.
const CLI::App& active_command(const CLI::App& app, std::string& name) {
  name = "puna";
  const CLI::App* active = &app;
  while (!active->get_subcommands().empty()) {
    active = active->get_subcommands().front();
    name += " " + active->get_name();
  }
  return *active;
}

// What was given that the command does not know, with the nearest option.
std::string describe_extras(const CLI::App& app) {
  std::string command;
  const CLI::App& active = active_command(app, command);
  std::vector<std::string> options = command_names(active);
  for (const CLI::Option* option : active.get_options())
    for (const std::string& name : option->get_lnames()) options.push_back("--" + name);
  const auto extras = app.remaining(true);
  const std::string first = extras.empty() ? "" : extras.front().substr(0, extras.front().find('='));
  return fmt::format("{} '{}'{}; see {} --help", first.starts_with("-") ? "unknown option" : "unexpected argument",
                     first, did_you_mean(first, options), command);
}

int complain(const char* message, int status) {
  fmt::print(stderr, "puna: {}\n", message);
  return status;
}

// CLI11's help and parse errors; its messages may span lines, ours is one.
int parse_error(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) {
    print_now(dynamic_cast<const CLI::CallForVersion*>(&error) ? app.version() + "\n" : app.help());
    return 0;
  }
  std::string message = dynamic_cast<const CLI::ExtrasError*>(&error) ? describe_extras(app) : error.what();
  std::replace(message.begin(), message.end(), '\n', ' ');
  std::string where;
  const bool whole_program = &active_command(app, where) == &app;
  if (dynamic_cast<const CLI::RequiredError*>(&error)) message += fmt::format("; see {} --help", where);
  return complain(fmt::format("[{}] {}", whole_program ? where : where.substr(where.find(' ') + 1), message).c_str(),
                  kUsage);
}

int parse_and_run(CLI::App& app, std::vector<std::string> arguments) {
  if (arguments.empty()) {
    fmt::print(stderr, "{}", app.help());
    return kUsage;
  }
  try {
    check_command(app, arguments);
    std::reverse(arguments.begin(), arguments.end());  // CLI11 takes a vector from its back
    app.parse(arguments);
  } catch (const CLI::ParseError& error) {
    return parse_error(app, error);
  }
  // fmt::print checks each write; what is still buffered is checked here, so that a full disk is never a success.
  if (std::fflush(stdout) != 0) throw std::system_error(errno, std::generic_category(), "cannot write");
  return 0;
}

constexpr const char* kNoMemory =
    "[memory] an allocation failed; close other programs or use a smaller model or context";

// LibTorch has no type of its own for the CPU allocator's failure.
bool is_out_of_memory(std::string_view message) {
  return message.find("can't allocate memory") != message.npos || message.find("out of memory") != message.npos;
}

// LibTorch's errors carry a C++ stack trace after the first line.
std::string first_line(std::string_view text) { return std::string(text.substr(0, text.find('\n'))); }

}  // namespace

void require_command(CLI::App& group) {
  group.require_subcommand(0, 1);
  group.callback([&group] {
    if (!group.get_subcommands().empty()) return;
    fmt::print(stderr, "{}", group.help("puna"));
    throw Exit{kUsage};
  });
}

void add_commands(CLI::App& app) {
  app.require_subcommand(0, 1);
  app.set_version_flag("--version", "puna " PUNA_VERSION);
  app.footer(
      "Run 'puna COMMAND --help' for the options of a command and an example.\n"
      "./puna help-dev lists the commands for work on Puna itself; ./puna --offline COMMAND never touches the "
      "network.\n");
  add_chat(app);
  add_generate(app);
  add_serve(app);
  add_inspect(app);
  add_tokenize(app);
  add_tokenizer(app);
  add_data(app);
  add_perplexity(app);
  add_plot(app);
  add_eval(app);
  add_demo_model(app);
  add_golden(app);
  add_train(app);
  add_export(app);
  add_quantize(app);
  add_bench(app);
  add_pack(app);
  add_experts(app);
  add_compare(app);
  add_convert(app);
}

int run(std::vector<std::string> arguments) {
  // A closed pipe and a file at its size limit show as errors below, so that temporary files are still removed.
  for (const int signal : {SIGPIPE, SIGXFSZ}) std::signal(signal, SIG_IGN);
  try {
    init_logging();
    CLI::App app("Puna: run, check, quantise and train Llama 4 models.", "puna");
    add_commands(app);
    return parse_and_run(app, std::move(arguments));
  } catch (const Exit& exit) {
    return exit.status;
  } catch (const Interrupted&) {
    return interrupt_status();
  } catch (const UsageError& error) {
    return complain(error.what(), kUsage);
  } catch (const Error& error) {
    return complain(error.what(), 1);
  } catch (const InternalError& error) {
    return complain(error.what(), kBug);
  } catch (const std::bad_alloc&) {
    return complain(kNoMemory, 1);
  } catch (const std::filesystem::filesystem_error& error) {
    return complain(fmt::format("[{}] {}", error.path1().string(), error.code().message()).c_str(), 1);
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::broken_pipe) return kClosedPipe;
    return complain(fmt::format("[standard output] {}", error.what()).c_str(), 1);
  } catch (const std::exception& error) {
    if (is_out_of_memory(error.what())) return complain(kNoMemory, 1);
    return complain(fmt::format("a bug in Puna, please report it: {}", first_line(error.what())).c_str(), kBug);
  }
}

}  // namespace puna::cli
