#include "cli/demo_model.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "arch/config.h"
#include "base/error.h"
#include "base/json.h"
#include "checkpoint/save.h"
#include "checkpoint/tensor_models.h"
#include "cli/commands.h"
#include "cli/terminal.h"
#include "io/file.h"
#include "media/image_processor.h"
#include "text/special_names.h"
#include "text/tokenizer_write.h"

namespace puna::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMarker = "DEMO_MODEL.md";

/// The 256 bytes, each its own number.
std::vector<std::string> byte_tokens() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  return tokens;
}

int64_t special_id(std::string_view name) {
  const auto specials = text::compact_special_names();
  const auto found = std::find(specials.begin(), specials.end(), name);
  PUNA_CHECK(found != specials.end(), "no special token {}", name);
  return std::ssize(byte_tokens()) + (found - specials.begin());
}

arch::Llama4Config demo_config() {
  arch::Llama4Config config = arch::preset("tiny").value();
  config.text.vocab_size = std::ssize(byte_tokens()) + std::ssize(text::compact_special_names());
  config.bos_token_id = special_id("<|begin_of_text|>");
  config.eos_token_ids = {special_id("<|end_of_text|>"), special_id("<|eom|>"), special_id("<|eot|>")};
  config.pad_token_id = special_id("<|finetune_right_pad|>");
  config.image_token_id = special_id("<|patch|>");
  config.boi_token_id = special_id("<|image_start|>");
  config.eoi_token_id = special_id("<|image_end|>");
  arch::validate(config, "demo model");
  return config;
}

void write_json(const fs::path& path, const Json& json) { io::write_file(path, json.dump(2) + "\n"); }

void write_sidecars(const fs::path& dir, const arch::Llama4Config& config) {
  write_json(dir / "tokenizer.json", text::hf_tokenizer_json(byte_tokens(), text::compact_special_names()));
  write_json(dir / "tokenizer_config.json", text::hf_tokenizer_config(config.text.max_position_embeddings));
  write_json(dir / "generation_config.json", {{"bos_token_id", config.bos_token_id},
                                              {"eos_token_id", config.eos_token_ids},
                                              {"pad_token_id", config.pad_token_id},
                                              {"do_sample", true},
                                              {"temperature", 0.6},
                                              {"top_p", 0.9}});
  if (config.vision)
    write_json(dir / "preprocessor_config.json", media::image_processor_json({.tile_size = config.vision->image_size}));
  io::write_file(dir / "chat_template.jinja", text::kChatTemplate);
}

void refuse_foreign_directory(const fs::path& dir) {
  if (!fs::exists(dir)) return;
  if (!fs::is_directory(dir)) fail(dir.string(), "is a file; name a directory with --out");
  if (fs::is_empty(dir) || fs::exists(dir / kMarker)) return;
  fail(dir.string(), "is not empty and holds no demo model; choose another --out, or overwrite with --force");
}

// An earlier demo model makes room; anybody else's model is left for save_hf to refuse.
void remove_old_demo(const fs::path& dir) {
  if (!fs::exists(dir / kMarker)) return;
  for (const char* name : {"config.json", "model.safetensors"}) fs::remove(dir / name);
}

struct DemoFlags {
  std::string out = "demo-model";
  uint64_t seed = 0;
  bool force = false;
};

void run_demo_model(const DemoFlags& flags) {
  write_demo_model(flags.out, flags.seed, flags.force);
  print_now(
      fmt::format("Wrote a tiny random model to {0} (it answers noise, but every command works on it).\n"
                  "Next: ./puna chat --model {0}\n",
                  flags.out));
}

}  // namespace

void write_demo_model(const fs::path& dir, uint64_t seed, bool force) {
  if (!force) refuse_foreign_directory(dir);
  std::error_code error;
  fs::create_directories(dir, error);
  if (error) fail(dir.string(), "cannot be made: {}; choose another --out", error.message());
  remove_old_demo(dir);
  const arch::Llama4Config config = demo_config();
  const auto source = checkpoint::random_model(config, seed, /*embedding_deviation=*/1);
  io::write_file(
      dir / kMarker,
      "# Demo model\nA tiny random model written by `puna demo-model`. It knows nothing; it is for trying the "
      "commands.\n");
  checkpoint::save_hf(dir, config, at::kBFloat16,
                      [&](const arch::ParamRow& row) { return source->load(row, at::kFloat); });
  write_sidecars(dir, config);
}

void add_demo_model(CLI::App& app) {
  auto flags = std::make_shared<DemoFlags>();
  CLI::App* command = app.add_subcommand("demo-model", "Write a tiny random model, to try the other commands");
  command->add_option("--out", flags->out, "Directory to write")->type_name("DIR")->capture_default_str();
  command->add_option("--seed", flags->seed, "Of the random weights")->type_name("N")->capture_default_str();
  command->add_flag("--force", flags->force,
                    "Write into a directory that holds other files (never over another model)");
  command->footer("Example:\n  puna demo-model --out demo-model && puna chat --model demo-model");
  command->callback([flags] { run_demo_model(*flags); });
}

}  // namespace puna::cli
