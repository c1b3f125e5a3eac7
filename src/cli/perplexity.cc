#include "engine/perplexity.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "base/error.h"
#include "base/json.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "io/file.h"

namespace puna::cli {
namespace {

struct PerplexityFlags {
  ModelOptions model;
  std::string text;
  int64_t context = 8192, stride = 0;
  bool by_position = false, json = false;
};

Json to_json(const engine::PerplexityResult& result, const PerplexityFlags& flags) {
  Json json = {{"tokens", result.tokens},
               {"nll", result.nll},
               {"mean_nll", result.mean_nll()},
               {"perplexity", result.perplexity()},
               {"context", flags.context}};
  if (!flags.by_position) return json;
  json["by_position"] = Json::array();
  for (size_t i = 0; i < result.by_position.size(); ++i) {
    const auto& bucket = result.by_position[i];
    if (bucket.tokens == 0) continue;
    const double mean = bucket.nll / static_cast<double>(bucket.tokens);
    json["by_position"].push_back({{"first", int64_t{1} << i},
                                   {"last", (int64_t{2} << i) - 1},
                                   {"tokens", bucket.tokens},
                                   {"mean_nll", mean},
                                   {"perplexity", std::exp(mean)}});
  }
  return json;
}

std::string to_text(const Json& json) {
  std::string out = fmt::format("perplexity {:.4f}   mean NLL {:.6f}   {} tokens\n", json["perplexity"].get<double>(),
                                json["mean_nll"].get<double>(), json["tokens"].get<int64_t>());
  if (!json.contains("by_position")) return out;
  out += fmt::format("{:>22} {:>10} {:>10} {:>12}\n", "position in window", "tokens", "mean NLL", "perplexity");
  for (const Json& row : json["by_position"]) {
    const std::string range = fmt::format("{}..{}", row["first"].get<int64_t>(), row["last"].get<int64_t>());
    out += fmt::format("{:>22} {:>10} {:>10.4f} {:>12.4f}\n", range, row["tokens"].get<int64_t>(),
                       row["mean_nll"].get<double>(), row["perplexity"].get<double>());
  }
  return out;
}

void run_perplexity(const PerplexityFlags& flags) {
  if (flags.text.empty()) throw UsageError("--text", "is missing; give a text file with --text FILE");
  const std::string text = io::read_file(flags.text, int64_t{1} << 30);
  const engine::LoadedModel loaded = load(flags.model, flags.context);
  const std::vector<engine::TokenId> tokens = loaded.tokenizer->encode(text);
  engine::PerplexityOptions options;
  options.context = flags.context;
  options.stride = flags.stride;
  std::string shown;
  {
    Progress progress("perplexity", static_cast<int64_t>(tokens.size()));
    options.on_progress = [&](int64_t done) { progress.set(done); };
    const Json json = to_json(engine::perplexity(loaded, tokens, options).value(), flags);
    shown = flags.json ? json.dump(2) + "\n" : to_text(json);
  }
  print_now(shown);
}

}  // namespace

void add_perplexity(CLI::App& app) {
  auto flags = std::make_shared<PerplexityFlags>();
  CLI::App* command = app.add_subcommand("perplexity", "Measure how well a model predicts a text");
  add_model_options(*command, flags->model);
  command->add_option("--text", flags->text, "The text, UTF-8")->type_name("FILE");
  command->add_option("--context", flags->context, "Tokens per window, <|begin_of_text|> included")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--stride", flags->stride, "New tokens per window; 0: windows do not overlap")
      ->type_name("N")
      ->capture_default_str();
  command->add_flag("--by-position", flags->by_position, "Also a table by position in the window");
  command->add_flag("--json", flags->json, "One JSON object");
  command->footer("Example:\n  puna perplexity --model ./scout --text book.txt --context 32768 --by-position");
  command->callback([flags] { run_perplexity(*flags); });
}

}  // namespace puna::cli
