#include "cli/demo_model.h"

#include <CLI/CLI.hpp>
#include <array>
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

namespace puna::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMarker = "DEMO_MODEL.md";
constexpr int64_t kBytes = 256;
constexpr std::array kSpecials = {"<|begin_of_text|>",
                                  "<|end_of_text|>",
                                  "<|fim_prefix|>",
                                  "<|fim_middle|>",
                                  "<|fim_suffix|>",
                                  "<|header_start|>",
                                  "<|header_end|>",
                                  "<|eom|>",
                                  "<|eot|>",
                                  "<|step|>",
                                  "<|python_start|>",
                                  "<|python_end|>",
                                  "<|finetune_right_pad|>",
                                  "<|image_start|>",
                                  "<|image_end|>",
                                  "<|tile_x_separator|>",
                                  "<|tile_y_separator|>",
                                  "<|image|>",
                                  "<|patch|>",
                                  "<|reasoning_thinking_start|>",
                                  "<|reasoning_thinking_end|>"};
// Llama 4's split pattern (SPEC 7), as tokenizer.json states it.
constexpr const char* kPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kChatTemplate =
    "{{- bos_token }}{%- for m in messages %}{{- '<|header_start|>' + m['role'] + '<|header_end|>\\n\\n' }}"
    "{%- if m['content'] is string %}{{- m['content'] }}{%- else %}{%- for c in m['content'] %}"
    "{%- if c['type'] == 'image' %}{{- '<|image|>' }}{%- else %}{{- c['text'] }}{%- endif %}{%- endfor %}{%- endif %}"
    "{{- '<|eot|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|header_start|>assistant<|header_end|>\\n\\n' }}{%- endif %}";

int64_t special_id(std::string_view name) {
  for (size_t i = 0; i < kSpecials.size(); ++i)
    if (name == kSpecials[i]) return kBytes + static_cast<int64_t>(i);
  PUNA_CHECK(false, "no special token {}", name);
  return 0;
}

// The printable character that stands for a byte in byte-level vocabularies (GPT-2's table).
std::string byte_character(int byte) {
  const auto printable = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  };
  int code = byte;
  if (!printable(byte)) {
    code = 256;
    for (int b = 0; b < byte; ++b) code += !printable(b);
  }
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

Json tokenizer_json() {
  Json vocabulary = Json::object(), added = Json::array();
  for (int byte = 0; byte < kBytes; ++byte) vocabulary[byte_character(byte)] = byte;
  for (const char* name : kSpecials)
    added.push_back({{"id", special_id(name)},
                     {"content", name},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  const Json split = {
      {"type", "Split"}, {"pattern", {{"Regex", kPattern}}}, {"behavior", "Isolated"}, {"invert", false}};
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", Json::array({split, byte_level})}}},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", true},
            {"vocab", vocabulary},
            {"merges", Json::array()}}}};
}

arch::Llama4Config demo_config() {
  arch::Llama4Config config = arch::preset("tiny").value();
  config.text.vocab_size = kBytes + static_cast<int64_t>(kSpecials.size());
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
  write_json(dir / "tokenizer.json", tokenizer_json());
  write_json(dir / "tokenizer_config.json", {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                             {"bos_token", "<|begin_of_text|>"},
                                             {"eos_token", "<|eot|>"},
                                             {"pad_token", "<|finetune_right_pad|>"},
                                             {"clean_up_tokenization_spaces", false},
                                             {"model_max_length", config.text.max_position_embeddings},
                                             {"chat_template", kChatTemplate}});
  write_json(dir / "generation_config.json", {{"bos_token_id", config.bos_token_id},
                                              {"eos_token_id", config.eos_token_ids},
                                              {"pad_token_id", config.pad_token_id},
                                              {"do_sample", true},
                                              {"temperature", 0.6},
                                              {"top_p", 0.9}});
  if (config.vision)
    write_json(dir / "preprocessor_config.json", media::image_processor_json({.tile_size = config.vision->image_size}));
  io::write_file(dir / "chat_template.jinja", kChatTemplate);
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
