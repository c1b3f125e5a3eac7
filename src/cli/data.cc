// puna data: datasets for training: built of files, shown again, generated.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "arch/config.h"
#include "base/error.h"
#include "base/json.h"
#include "checkpoint/model_source.h"
#include "cli/commands.h"
#include "cli/terminal.h"
#include "data/build.h"
#include "data/dataset.h"
#include "data/files.h"
#include "data/vocabulary.h"
#include "data/write_records.h"
#include "io/file.h"
#include "synth/generator.h"
#include "text/utf8.h"

namespace puna::cli {
namespace {

namespace fs = std::filesystem;

struct BuildFlags {
  std::string model, tokenizer, out, chat_form = "hf";
  std::vector<std::string> files;
};

struct ShowFlags {
  std::string dir;
  int64_t count = 3, from = 0;
  bool json = false;
};

struct GenerateFlags {
  synth::GeneratorOptions options;
  std::string split = "train", out, file;
};

arch::Llama4Config config_of(const fs::path& model) {
  const fs::path config = model / "config.json";
  if (fs::is_directory(model) && io::path_exists(config))
    return arch::config_from_hf(read_json_file(config), config.string());
  return checkpoint::open_model(model)->config();
}

data::Encoding encoding_of(const BuildFlags& flags) {
  if (flags.model.empty() == flags.tokenizer.empty())
    throw UsageError("data build", "give either --model, or --tokenizer for text without images");
  data::Encoding encoding;
  encoding.chat_form = flags.chat_form == "meta" ? text::ChatForm::kMeta : text::ChatForm::kHuggingFace;
  encoding.tokenizer = text::Tokenizer::open(flags.model.empty() ? flags.tokenizer : flags.model);
  if (flags.model.empty()) return encoding;
  if (const auto vision = config_of(flags.model).vision) {
    const fs::path dir = fs::is_directory(flags.model) ? fs::path(flags.model) : fs::path(flags.model).parent_path();
    encoding.image_processor = media::image_processor_config(dir, vision->image_size);
    encoding.tokens_per_tile = static_cast<int>(vision->tokens_per_tile());
  }
  return encoding;
}

std::string summary(const data::Dataset& dataset) {
  return fmt::format("{}: {} documents, {} tokens, {} images", dataset.name(), dataset.num_documents(),
                     dataset.num_tokens(), dataset.num_images());
}

void run_build(const BuildFlags& flags) {
  const data::Encoding encoding = encoding_of(flags);
  const auto records = data::open_files({flags.files.begin(), flags.files.end()});
  data::BuildOptions options;
  options.out = options.name = flags.out;
  const InterruptGuard interrupt;
  options.interrupt = &interrupt.flag();
  data::build(*records, encoding, options);
  print_now(summary(*data::Dataset::open(flags.out)) + "\n");
}

/// A run of tokens that are shown alike.
struct Segment {
  std::string text;
  bool loss = false;
};

/// The document as text: runs with and without loss, an image as "<image 2x3 tiles>".
std::vector<Segment> segments_of(const data::DocumentView& document, const data::StoredVocabulary& vocabulary) {
  std::vector<Segment> segments;
  size_t image = 0;
  for (size_t i = 0; i < document.tokens.size();) {
    const bool loss = document.loss[i] == 1;
    if (segments.empty() || segments.back().loss != loss) segments.push_back({"", loss});
    if (image < document.images.size() && document.images[image].first_token == static_cast<int64_t>(i)) {
      const text::ImageTiles& tiles = document.images[image++].tiles;
      segments.back().text += fmt::format("<image {}x{} tiles>", tiles.rows, tiles.columns);
      i += static_cast<size_t>(data::num_image_tokens(tiles));
    } else {
      segments.back().text += vocabulary.bytes(document.tokens[i++]);
    }
  }
  for (Segment& segment : segments) segment.text = text::replace_invalid_utf8(segment.text);
  return segments;
}

OrderedJson document_json(int64_t number, const data::DocumentView& document, const std::vector<Segment>& segments) {
  OrderedJson json = {{"document", number}, {"tokens", document.tokens}, {"loss", document.loss}};
  json["images"] = OrderedJson::array();
  for (const auto& image : document.images)
    json["images"].push_back({{"first_token", image.first_token},
                              {"rows", image.tiles.rows},
                              {"columns", image.tiles.columns},
                              {"tokens_per_tile", image.tiles.tokens_per_tile},
                              {"bytes", image.encoded.size()}});
  json["segments"] = OrderedJson::array();
  for (const Segment& segment : segments) json["segments"].push_back({{"text", segment.text}, {"loss", segment.loss}});
  return json;
}

std::string document_text(int64_t number, const data::DocumentView& document, const std::vector<Segment>& segments) {
  const Style style = terminal_style();
  const auto with_loss = std::count(document.loss.begin(), document.loss.end(), uint8_t{1});
  std::string text = fmt::format("{}document {}: {} tokens, {} with loss, {} images{}\n", style.note, number,
                                 document.tokens.size(), with_loss, document.images.size(), style.reset);
  const bool coloured = !style.prompt.empty();
  for (const Segment& segment : segments) {
    const std::string shown = for_screen(segment.text);
    if (!segment.loss)
      text += shown;
    else
      text += coloured ? style.prompt + shown + style.reset : "[[" + shown + "]]";
  }
  return text + "\n\n";
}

void run_show(const ShowFlags& flags) {
  const auto dataset = data::Dataset::open(flags.dir);
  const auto vocabulary = data::StoredVocabulary::open(flags.dir, dataset->tokenizer_hash());
  if (flags.from >= dataset->num_documents())
    fail("data show", "--from {}: the dataset has {} documents, numbered from 0", flags.from, dataset->num_documents());
  if (!flags.json) print_now(summary(*dataset) + "\n\n");
  const int64_t end = flags.from + std::min(flags.count, dataset->num_documents() - flags.from);
  for (int64_t i = flags.from; i < end; ++i) {
    const auto document = dataset->document(i);
    const auto segments = segments_of(document, vocabulary);
    print_now(flags.json ? document_json(i, document, segments).dump() + "\n" : document_text(i, document, segments));
  }
}

void run_generate(const GenerateFlags& flags) {
  synth::GeneratorOptions options = flags.options;
  options.split = flags.split == "train" ? synth::Split::kTrain : synth::Split::kHeldOut;
  options.file = flags.file;
  const auto records = synth::open_generator(options);
  const std::string name = options.kind + "-" + flags.split;
  const int64_t count = data::write_records(*records, flags.out, name);
  print_now(fmt::format("{}: {} records\n", (fs::path(flags.out) / (name + ".jsonl")).string(), count));
}

void add_build(CLI::App& data) {
  auto flags = std::make_shared<BuildFlags>();
  CLI::App* command = data.add_subcommand("build", "Text, chats and images to tokens that training reads");
  command->add_option("files", flags->files, "*.txt and *.md (a document each), *.jsonl (a record a line), directories")
      ->type_name("FILES")
      ->required();
  command->add_option("--model", flags->model, "Model whose tokenizer and image tiles are used")->type_name("DIR");
  command->add_option("--tokenizer", flags->tokenizer, "Tokenizer file or directory, for text alone")
      ->type_name("FILE");
  command->add_option("--out", flags->out, "The dataset's directory; an interrupted build goes on there")
      ->type_name("DIR")
      ->required();
  command->add_option("--chat-form", flags->chat_form, "Chat format: Hugging Face's or Meta's")
      ->type_name("hf|meta")
      ->check(CLI::IsMember({"hf", "meta"}))
      ->capture_default_str();
  command->footer(
      "A line of JSONL is {\"text\": ...}, {\"text\": \"... <image> ...\", \"images\": [\"a.png\"]} or\n"
      "{\"messages\": [{\"role\": \"user\", \"content\": ...}, ...]}; docs/DATA.md has all forms.\n"
      "Example:\n  puna data build --model ./scout --out ./my-data chats.jsonl notes/");
  command->callback([flags] { run_build(*flags); });
}

void add_show(CLI::App& data) {
  auto flags = std::make_shared<ShowFlags>();
  CLI::App* command = data.add_subcommand("show", "Print documents of a dataset; what is learned is marked");
  command->add_option("dir", flags->dir, "The dataset")->type_name("DIR")->required();
  command->add_option("--count", flags->count, "Documents to print")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, INT64_MAX))
      ->capture_default_str();
  command->add_option("--from", flags->from, "The first of them, counted from 0")
      ->type_name("K")
      ->check(CLI::Range(int64_t{0}, INT64_MAX))
      ->capture_default_str();
  command->add_flag("--json", flags->json, "One JSON object a line: tokens, loss, images, text in segments");
  command->footer(
      "What the model is to predict is coloured on a terminal, in [[ ]] elsewhere.\n"
      "Example:\n  puna data show ./my-data --count 1");
  command->callback([flags] { run_show(*flags); });
}

void add_generate_data(CLI::App& data) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::App* command = data.add_subcommand("generate", "Write generated records as JSONL and PNG files");
  std::string kinds;
  for (const std::string& kind : synth::generator_names()) kinds += (kinds.empty() ? "" : ", ") + kind;
  command->add_option("kind", flags->options.kind, kinds)->type_name("KIND")->required();
  command->add_option("--count", flags->options.documents, "Records to write")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, INT64_MAX))
      ->required();
  command->add_option("--seed", flags->options.seed, "Records are those of this seed")
      ->type_name("S")
      ->capture_default_str();
  command->add_option("--split", flags->split, "What is asked in one split is never asked in the other")
      ->type_name("train|held-out")
      ->check(CLI::IsMember({"train", "held-out"}))
      ->capture_default_str();
  command->add_option("--length", flags->options.length, "Rough tokens of a record, for kinds with a choice")
      ->type_name("N");
  command->add_option("--file", flags->file, "Questions to ask, for kinds that read them")->type_name("FILE");
  command->add_option("--out", flags->out, "Directory for KIND-SPLIT.jsonl and its images")
      ->type_name("DIR")
      ->required();
  command->footer("Example:\n  puna data generate arithmetic --count 1000 --out ./generated");
  command->callback([flags] { run_generate(*flags); });
}

}  // namespace

void add_data(CLI::App& app) {
  CLI::App* data = app.add_subcommand("data", "Make and look at training data: build, show, generate");
  require_command(*data);
  data->footer("Example:\n  puna data build --model ./scout --out ./my-data chats.jsonl notes/");
  add_build(*data);
  add_show(*data);
  add_generate_data(*data);
}

}  // namespace puna::cli
