#include <CLI/CLI.hpp>
#include <memory>

#include "base/error.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/golden_run.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "engine/prompt.h"
#include "io/file.h"
#include "io/safetensors.h"

namespace puna::cli {
namespace {

struct GoldenFlags {
  ModelOptions model;
  std::string ids, key = "ids", out, pixels, labels, logits_name = "logits";
  std::optional<std::string> suffix;
  std::vector<std::string> images;
  bool all_keys = false, trace = false, vision_trace = false, grads = false, sampled = false, merged = false;
  int64_t greedy = 0, pieces = 0;
};

// "ids.40" -> ".40"; "ids" -> ".all", the name of whole image prompts.
std::string suffix_of(const GoldenFlags& flags, const std::string& key) {
  if (flags.suffix) return flags.suffix->empty() ? "" : "." + *flags.suffix;
  const size_t dot = key.find('.');
  return dot == std::string::npos ? ".all" : key.substr(dot);
}

at::Tensor read_pixels(const GoldenFlags& flags, const engine::LoadedModel& loaded) {
  if (!flags.pixels.empty()) return read_tensor(io::open_safetensors(flags.pixels), "pixel_values", flags.pixels);
  std::vector<at::Tensor> tiles;
  for (const std::string& file : flags.images) {
    const io::ImageLimits limits;
    const std::string bytes = io::read_file(file, limits.max_bytes);
    const io::Image image = io::decode_image(std::as_bytes(std::span(bytes)), file, limits);
    tiles.push_back(media::process_image(image, loaded.image_processor).pixels);
  }
  return tiles.empty() ? at::Tensor() : at::cat(tiles);
}

std::vector<std::string> keys_of(const GoldenFlags& flags, const io::TensorFile& file) {
  if (!flags.all_keys) return {flags.key};
  std::vector<std::string> keys;
  for (const io::TensorView& tensor : file.tensors())
    if (tensor.name == "ids" || tensor.name.starts_with("ids.")) keys.push_back(tensor.name);
  if (keys.empty()) fail(flags.ids, "holds no tensor named 'ids' or 'ids.*'; name one with --key");
  return keys;
}

// Labels [B, T]: the ids themselves, or those of a file: JSON {"labels": [...]} or safetensors "labels".
at::Tensor read_labels(const GoldenFlags& flags, const at::Tensor& ids) {
  if (flags.labels.empty()) return ids;
  at::Tensor labels;
  if (flags.labels.ends_with(".json")) {
    const Json json = read_json_file(flags.labels);
    if (!json.is_object() || !json.contains("labels") || !json["labels"].is_array())
      fail(flags.labels, "has no list 'labels'");
    for (const Json& label : json["labels"])
      if (!label.is_number_integer()) fail(flags.labels, "labels holds {}; expected integers", label.dump());
    labels = at::tensor(json["labels"].get<std::vector<int64_t>>(), at::kLong);
  } else {
    labels = read_tensor(io::open_safetensors(flags.labels), "labels", flags.labels).to(at::kLong);
  }
  if (labels.numel() != ids.numel())
    fail(flags.labels, "has {} labels for {} ids; they must be as many", labels.numel(), ids.numel());
  return labels.reshape(ids.sizes());
}

void check_ids(const at::Tensor& ids, const std::string& key, const engine::LoadedModel& loaded,
               const std::string& where) {
  const int64_t vocabulary = loaded.config().text.vocab_size;
  if (ids.numel() == 0 || ids.is_floating_point()) fail(where, "tensor '{}' holds no token ids", key);
  const int64_t low = ids.min().item<int64_t>(), high = ids.max().item<int64_t>();
  if (low < 0 || high >= vocabulary)
    fail(where, "tensor '{}' holds id {}; the vocabulary has {} entries", key, low < 0 ? low : high, vocabulary);
}

void run_gradients(const GoldenFlags& flags, const engine::LoadedModel& loaded, const io::TensorFile& file,
                   const at::Tensor& pixels, GoldenOutput& out) {
  at::Tensor ids = read_tensor(file, flags.key, flags.ids).to(at::kLong);
  check_ids(ids, flags.key, loaded, flags.ids);
  if (ids.dim() == 3) ids = ids[0];  // [steps, B, T]: the first step
  if (ids.dim() == 1) ids = ids.unsqueeze(0);
  if (ids.dim() != 2)
    fail(flags.ids, "tensor '{}' has {} dimensions; expected [T], [B, T] or [steps, B, T]", flags.key, ids.dim());
  golden_gradients(loaded, ids, read_labels(flags, ids), pixels, out);
}

void run_prompts(const GoldenFlags& flags, const engine::LoadedModel& loaded, const io::TensorFile& file,
                 const at::Tensor& pixels, GoldenOutput& out) {
  GoldenLogits logits{flags.logits_name, std::nullopt, flags.trace, flags.pieces};
  if (flags.sampled) logits.sample_cols = read_tensor(file, "sample_cols", flags.ids);
  std::vector<GoldenPrompt> prompts;
  for (const std::string& key : keys_of(flags, file)) {
    const at::Tensor ids = read_tensor(file, key, flags.ids);
    check_ids(ids, key, loaded, flags.ids);
    if (ids.dim() != 1) fail(flags.ids, "tensor '{}' has {} dimensions; only --grads takes batches", key, ids.dim());
    prompts.push_back({ids.to(at::kLong), pixels, suffix_of(flags, key)});
    out.add(key, ids);
    golden_logits(loaded, prompts.back(), logits, out);
    if (flags.greedy > 0) golden_greedy(loaded, prompts.back(), flags.greedy, out);
  }
  if (!flags.merged) return;
  merge_adapters(*loaded.model);
  logits.name += "_merged";
  for (const GoldenPrompt& prompt : prompts) golden_logits(loaded, prompt, logits, out);
}

void check_flags(const GoldenFlags& flags) {
  if (flags.out.empty()) throw UsageError("--out", "is missing; name the safetensors file to write");
  const bool has_images = !flags.images.empty() || !flags.pixels.empty();
  if (flags.ids.empty() && !has_images)
    throw UsageError("--ids", "is missing; give token ids with --ids, or --images alone");
  if (!flags.images.empty() && !flags.pixels.empty()) throw UsageError("--pixels", "and --images exclude each other");
  if (flags.vision_trace && !has_images) throw UsageError("--vision-trace", "needs --images or --pixels");
  if (flags.vision_trace && flags.trace)
    throw UsageError("--vision-trace", "and --trace share tensor names; run them one after the other");
  if (flags.trace && flags.pieces > 0) throw UsageError("--trace", "and --pieces exclude each other");
  if (flags.trace && flags.all_keys) throw UsageError("--trace", "takes one prompt; use --key instead of --all-keys");
  if (flags.merged && flags.model.adapters.empty()) throw UsageError("--merged", "needs --adapter");
  if (flags.greedy < 0 || flags.pieces < 0) throw UsageError("--greedy", "and --pieces must not be negative");
}

void run_golden(const GoldenFlags& flags) {
  check_flags(flags);
  const engine::LoadedModel loaded = load(flags.model, 1024, /*need_tokenizer=*/false);
  if (!flags.images.empty() || !flags.pixels.empty())
    engine::check_images(loaded, std::max<size_t>(flags.images.size(), 1));
  const at::Tensor pixels = read_pixels(flags, loaded);
  GoldenOutput out;
  if (!flags.ids.empty()) {
    const io::TensorFile file = io::open_safetensors(flags.ids);
    flags.grads ? run_gradients(flags, loaded, file, pixels, out) : run_prompts(flags, loaded, file, pixels, out);
  }
  if (flags.vision_trace) golden_vision_trace(loaded, pixels, out);
  if (pixels.defined()) out.add("pixel_values", pixels, /*keep_dtype=*/true);
  out.write(flags.out);
  print_now(fmt::format("{}: {} tensors\n", flags.out, out.size()));
}

void add_output_options(CLI::App& command, GoldenFlags& flags) {
  const std::string group = "What is written";
  command.add_option("--out", flags.out, "safetensors file to write")->type_name("FILE")->group(group);
  command.add_option("--logits-name", flags.logits_name, "Name of the logits")
      ->type_name("NAME")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--suffix", flags.suffix,
                  "End of the names: NAME.SUFFIX; default: what follows 'ids.' in the key, else 'all'; '' for none")
      ->type_name("TEXT")
      ->group(group);
  command
      .add_flag("--sampled", flags.sampled,
                "For large vocabularies: logits_sampled (at the file's sample_cols), logsumexp, top20, last")
      ->group(group);
  command.add_flag("--trace", flags.trace, "Also the text model's internals: embeds, layers.0.q, ...")->group(group);
  command.add_flag("--vision-trace", flags.vision_trace, "Also the vision model's internals")->group(group);
  command.add_flag("--grads", flags.grads, "Loss and gradients instead of logits")->group(group);
  command.add_flag("--merged", flags.merged, "Also logits with the adapters merged into the weights")->group(group);
  command.add_option("--greedy", flags.greedy, "Also this many greedy tokens, as greedy.SUFFIX")
      ->type_name("N")
      ->group(group);
}

}  // namespace

void add_golden(CLI::App& app) {
  auto flags = std::make_shared<GoldenFlags>();
  CLI::App* command =
      app.add_subcommand("golden", "Write logits, traces, pixels or gradients of given token ids, to compare");
  flags->model.dtype = "fp32";
  flags->model.weights = "dense";
  add_model_options(*command, flags->model);
  command->add_option("--ids", flags->ids, "safetensors file with token ids")->type_name("FILE");
  command
      ->add_option("--key", flags->key,
                   "Tensor of that file: [T]; with --grads also [B, T] or [steps, B, T] (first step)")
      ->type_name("NAME")
      ->capture_default_str();
  command->add_flag("--all-keys", flags->all_keys, "Every tensor named ids or ids.*");
  command->add_option("--images", flags->images, "Image files of the prompt, in order")->type_name("FILE");
  command->add_option("--pixels", flags->pixels, "safetensors file whose pixel_values are used instead of images")
      ->type_name("FILE");
  command
      ->add_option("--labels", flags->labels,
                   "With --grads: JSON or safetensors file with 'labels' (-100: ignored); default: the ids")
      ->type_name("FILE");
  command->add_option("--pieces", flags->pieces, "Feed the prompt through the cache, N tokens at a time")
      ->type_name("N");
  add_output_options(*command, *flags);
  command->footer(
      "Example:\n  puna golden --ckpt ./scout --ids text.safetensors --key ids.40 --out mine.safetensors\n"
      "docs/GOLDEN.md has the command for every kind of golden file.");
  command->callback([flags] { run_golden(*flags); });
}

}  // namespace puna::cli
