// src/cli: the command line: one file per command, each a thin layer over engine, arch, text and checkpoint.
// Parsing, messages and exit statuses live here; nothing else in the program reads argv or decides a status.
#pragma once

namespace CLI {
class App;
}

namespace puna::cli {

/// Thrown by a command that has said all it has to say: the process ends with this status (130 or 143: interrupted).
struct Exit {
  int status;
};

/// For a command that is a group of commands: alone, it prints its help and ends with the status of wrong usage.
void require_command(CLI::App& group);

// Each adds its subcommand to `app`, with help, an example and a callback that runs it.
void add_chat(CLI::App& app);
void add_generate(CLI::App& app);
void add_serve(CLI::App& app);
void add_inspect(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_tokenizer(CLI::App& app);
void add_data(CLI::App& app);
void add_perplexity(CLI::App& app);
void add_plot(CLI::App& app);
void add_eval(CLI::App& app);
void add_demo_model(CLI::App& app);
void add_golden(CLI::App& app);
void add_train(CLI::App& app);
void add_export(CLI::App& app);
void add_quantize(CLI::App& app);
void add_bench(CLI::App& app);
void add_pack(CLI::App& app);
void add_experts(CLI::App& app);
void add_compare(CLI::App& app);
void add_convert(CLI::App& app);

}  // namespace puna::cli
