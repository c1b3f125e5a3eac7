// puna experts: which experts of a packed model a text uses.
#include <CLI/CLI.hpp>
#include <memory>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "engine/expert_rows.h"
#include "engine/perplexity.h"
#include "io/file.h"
#include "ops/observe.h"

namespace puna::cli {
namespace {

struct ProfileFlags {
  ModelOptions model;
  std::string text, out;
};

void run_profile(const ProfileFlags& flags) {
  if (flags.text.empty()) throw UsageError("--text", "is missing; give a text file with --text FILE");
  if (flags.out.empty()) throw UsageError("--out", "is missing; give the file to write with --out FILE");
  const std::string text = io::read_file(flags.text, int64_t{1} << 30);
  constexpr int64_t kContext = 2048;
  const engine::LoadedModel loaded = load(flags.model, kContext);
  engine::ExpertRows rows = engine::no_expert_rows(loaded.config().text);
  if (rows.empty())
    throw UsageError("experts profile", fmt::format("is nothing for {}: it has no experts", loaded.name));
  const std::vector<text::TokenId> tokens = loaded.tokenizer->encode(text);
  const InterruptGuard interrupt;
  Progress progress("tokens", std::ssize(tokens));
  engine::PerplexityOptions options;
  options.context = kContext;
  options.cancel = &interrupt.flag();
  std::vector<ops::Routing> routes;
  const ops::ObservingRoutes observing(routes);
  options.on_progress = [&](int64_t done) {
    progress.set(done);
    engine::add_expert_rows(rows, routes);
    routes.clear();
  };
  if (!engine::perplexity(loaded, tokens, options)) throw Interrupted();
  engine::add_expert_rows(rows, routes);
  io::write_file(flags.out, Json({{"rows", rows}}).dump() + "\n");
  print_now(fmt::format("Wrote {}: {} tokens. Next: --expert-profile {}\n", flags.out, tokens.size(), flags.out));
}

}  // namespace

void add_experts(CLI::App& app) {
  CLI::App* command = app.add_subcommand("experts", "Which experts of a model are used");
  command->require_subcommand(1);
  auto flags = std::make_shared<ProfileFlags>();
  CLI::App* profile = command->add_subcommand("profile", "Count the rows that each expert gets for a text");
  add_model_options(*profile, flags->model);
  profile->add_option("--text", flags->text, "Text file, like what will be asked later")->type_name("FILE");
  profile->add_option("--out", flags->out, "File to write, for --expert-profile")->type_name("FILE");
  profile->footer(
      "Example:\n  puna experts profile --model scout-packed --memory 16GiB --text notes.txt --out notes.experts.json\n"
      "  puna chat --model scout-packed --memory 16GiB --expert-profile notes.experts.json");
  profile->callback([flags] { run_profile(*flags); });
}

}  // namespace puna::cli
