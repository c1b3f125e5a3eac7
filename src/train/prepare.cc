#include "train/prepare.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/error.h"
#include "base/suggest.h"
#include "checkpoint/tensor_models.h"
#include "data/build.h"
#include "data/files.h"
#include "data/manifest.h"
#include "io/file.h"
#include "synth/generator.h"
#include "train/start_model.h"
#include "train/train_tokenizer.h"

namespace puna::train {
namespace {

namespace fs = std::filesystem;

void check_keys(const Json& given, const Json& known, std::string_view where, const std::string& path) {
  std::vector<std::string> names;
  for (const auto& [key, value] : known.items()) names.push_back(key);
  for (const auto& [key, value] : given.items()) {
    if (!known.contains(key)) {
      const std::string nearest = nearest_name(key, names);
      fail(where, "unknown key '{}{}'{}", path, key,
           nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest));
    }
    if (value.is_object() && known[key].is_object()) check_keys(value, known[key], where, path + key + ".");
  }
}

int64_t id_of(const text::Tokenizer& tokenizer, std::string_view name) { return tokenizer.special(name).value_or(-1); }

// The recipe's table as a config: the vocabulary and its special tokens are the tokenizer's.
arch::Llama4Config config_of(const Recipe& recipe, const text::Tokenizer& tokenizer) {
  const std::string where = recipe.path.string();
  Json json = recipe.model.config;
  const bool multimodal = json.contains("text_config");
  Json& text = multimodal ? json["text_config"] : json;
  if (!text.is_object()) fail(where, "'model.config.text_config' must be a table");
  if (text.contains("vocab_size") && text["vocab_size"] != tokenizer.vocab_size())
    fail(where, "'model.config.{}vocab_size' is {}, the tokenizer has {} entries; leave the key out",
         multimodal ? "text_config." : "", text["vocab_size"].dump(), tokenizer.vocab_size());
  text["vocab_size"] = tokenizer.vocab_size();
  json["model_type"] = multimodal ? "llama4" : "llama4_text";
  json["bos_token_id"] = id_of(tokenizer, "<|begin_of_text|>");
  json["eos_token_id"] = Json::array();
  for (const text::TokenId id : text::stop_tokens(tokenizer)) json["eos_token_id"].push_back(id);
  json["pad_token_id"] = id_of(tokenizer, "<|finetune_right_pad|>");
  if (multimodal) {
    json["image_token_index"] = id_of(tokenizer, "<|patch|>");
    json["boi_token_index"] = id_of(tokenizer, "<|image_start|>");
    json["eoi_token_index"] = id_of(tokenizer, "<|image_end|>");
  }
  const arch::Llama4Config config = arch::config_from_hf(json, where + " [model.config]");
  Json known = arch::config_to_hf(config);
  for (const char* legacy : {"rope_theta", "rope_scaling", "interleave_moe_layer_step", "no_rope_layer_interval"})
    (multimodal ? known["text_config"] : known)[legacy] = nullptr;
  check_keys(recipe.model.config, known, where, "model.config.");
  return config;
}

// A model's own tokenizer may be smaller than its padded vocabulary, another one not.
void check_vocabulary(const Prepared& prepared, bool own, std::string_view where) {
  const text::Tokenizer& tokenizer = *prepared.tokenizer;
  const arch::Llama4Config& config = prepared.config;
  const int64_t entries = tokenizer.vocab_size(), vocabulary = config.text.vocab_size;
  if (entries > vocabulary || (!own && entries < vocabulary))
    fail(where, "the tokenizer has {} entries, the model's vocabulary {}; use the model's own tokenizer", entries,
         vocabulary);
  const auto agree = [&](std::string_view name, int64_t id) {
    if (id >= 0 && id != id_of(tokenizer, name))
      fail(where, "{} is {} in the tokenizer, {} in the model (-1: absent); use the model's own tokenizer", name,
           id_of(tokenizer, name), id);
  };
  agree("<|begin_of_text|>", config.bos_token_id);
  const auto stops = text::stop_tokens(tokenizer);
  for (const int64_t id : config.eos_token_ids)
    if (std::ranges::find(stops, id) == stops.end())
      fail(where,
           "the model ends texts with the token {}, which is none of the tokenizer's <|end_of_text|>, <|eom|> and "
           "<|eot|> ({}); use the model's own tokenizer",
           id, fmt::join(stops, ", "));
  if (!config.vision) return;
  agree("<|image_start|>", config.boi_token_id);
  agree("<|image_end|>", config.eoi_token_id);
  if (config.image_token_id != id_of(tokenizer, "<|patch|>"))
    fail(where, "<|patch|> is {} in the tokenizer, {} in the model; use the model's own tokenizer",
         id_of(tokenizer, "<|patch|>"), config.image_token_id);
}

data::Encoding encoding_of(const Prepared& prepared) {
  data::Encoding encoding;
  encoding.tokenizer = prepared.tokenizer;
  encoding.image_processor = prepared.image_processor;
  if (prepared.config.vision) encoding.tokens_per_tile = static_cast<int>(prepared.config.vision->tokens_per_tile());
  return encoding;
}

// The first records of another source.
class FirstRecords : public data::RecordSource {
 public:
  FirstRecords(std::unique_ptr<data::RecordSource> all, int64_t count) : all_(std::move(all)), count_(count) {}
  std::optional<data::Record> next() override {
    const auto now = Clock::now();
    if (done_ == 0) begin_ = now;
    seconds_ = std::chrono::duration<double>(now - begin_).count();
    return done_++ < count_ ? all_->next() : std::nullopt;
  }
  std::string fingerprint() const override { return fmt::format("{}, the first {}", all_->fingerprint(), count_); }
  double progress() const override {
    const double of_count = static_cast<double>(done_) / static_cast<double>(count_);
    return std::min(1.0, std::max(of_count, all_->progress()));
  }
  /// Of all the records, and what reading and encoding that part of them took.
  double fraction() const { return all_->progress(); }
  double seconds() const { return seconds_; }

 private:
  using Clock = std::chrono::steady_clock;
  std::unique_ptr<data::RecordSource> all_;
  int64_t count_, done_ = 0;
  Clock::time_point begin_;
  double seconds_ = 0;
};

// From its first step on, a run has all that it was made of: files that were read may change or go.
bool has_begun(const fs::path& run_dir) { return fs::exists(run_dir / "metrics.jsonl"); }

std::shared_ptr<const data::Dataset> open_dataset(const fs::path& dir, const char* remedy) try {
  return data::Dataset::open(dir);
} catch (const Error& error) {
  fail(dir.string(), "{}: {}", remedy, error.what());
}

constexpr const char* kBuiltAgain =
    "cannot be used as it is; remove this directory, and the next start builds it again from its source";

std::shared_ptr<const data::Dataset> open_built(const fs::path& dir, const data::Encoding& encoding) {
  auto dataset = open_dataset(dir, kBuiltAgain);
  if (dataset->encoding_hash() != data::encoding_hash(encoding))
    fail(dir.string(),
         "was built for another tokenizer or other image tiles than the run's; start another run with out=DIR");
  return dataset;
}

int64_t bytes_in(const fs::path& dir) {
  int64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(dir)) bytes += static_cast<int64_t>(entry.file_size());
  return bytes;
}

std::shared_ptr<const data::Dataset> build_first(const SourceConfig& source, const fs::path& out,
                                                 const data::Encoding& encoding, const std::atomic<bool>* interrupt,
                                                 int64_t max_records, std::string_view where, Built& built) {
  FirstRecords records(open_records(source, where), max_records);
  data::build(records, encoding, {.out = out, .name = source.name, .interrupt = interrupt});
  built = {records.fraction(), records.seconds(), bytes_in(out)};
  return data::Dataset::open(out);
}

// Built of the first records of its source alone where `max_records` is not 0.
std::shared_ptr<const data::Dataset> open_source(const Recipe& recipe, size_t index, const fs::path& run_dir,
                                                 const data::Encoding& encoding, const std::atomic<bool>* interrupt,
                                                 int64_t max_records, Built& built) {
  const SourceConfig& source = recipe.sources[index];
  if (source.dataset.empty()) {
    const std::string where = recipe.path.string();
    const fs::path out = run_dir / "data" / source.name;
    if (has_begun(run_dir) && io::path_exists(out / data::kManifestName)) return open_built(out, encoding);
    if (max_records > 0) return build_first(source, out, encoding, interrupt, max_records, where, built);
    data::build(*open_records(source, where), encoding, {.out = out, .name = source.name, .interrupt = interrupt});
    return open_dataset(out, kBuiltAgain);
  }
  auto dataset = open_dataset(source.dataset, "cannot be used; build it again with puna data build");
  if (dataset->tokenizer_hash() != data::tokenizer_hash(*encoding.tokenizer))
    fail(source.dataset, "was built with another tokenizer than the model's; build it again with puna data build");
  if (dataset->num_images() > 0 && dataset->encoding_hash() != data::encoding_hash(encoding))
    fail(source.dataset, "its images were laid out for another model's tiles; build it again with puna data build");
  return dataset;
}

std::shared_ptr<const text::Tokenizer> open_kept(const fs::path& dir) try {
  return text::Tokenizer::open(dir);
} catch (const Error& error) {
  fail(dir.string(),
       "is the run's tokenizer and cannot be read; remove this directory, and the next start makes it "
       "again: {}",
       error.what());
}

}  // namespace

std::unique_ptr<data::RecordSource> open_records(const SourceConfig& source, std::string_view where) try {
  if (!source.files.empty()) return data::open_files({source.files.begin(), source.files.end()});
  synth::GeneratorOptions options;
  options.kind = source.generate;
  options.documents = source.documents;
  options.seed = source.seed;
  options.length = source.length;
  options.file = source.file;
  if (source.validation) options.split = synth::Split::kHeldOut;
  return synth::open_generator(options);
} catch (const Error& error) {
  fail(where, "source '{}': {}", source.name, error.what());
}

Prepared prepare_model(const Recipe& recipe, const fs::path& run_dir, const std::atomic<bool>* interrupt) {
  Prepared prepared;
  const std::string where = recipe.path.string();
  const ModelConfig& model = recipe.model;
  const bool begun = has_begun(run_dir);
  if (!model.from.empty()) {
    StartModel start = keep_start_model(model.from, run_dir, begun);
    prepared.config = std::move(start.config);
    prepared.image_processor = start.image_processor;
  }
  if (model.vocab_size > 0) {
    if (!model.from.empty() || !model.tokenizer.empty())
      fail(where, "'model.vocab_size' trains a tokenizer; leave out 'from' and 'tokenizer'");
    prepared.tokenizer_dir = run_dir / "tokenizer";
    train_tokenizer(recipe, prepared.tokenizer_dir, begun, interrupt);
  } else {
    const fs::path given = !model.tokenizer.empty() ? model.tokenizer : model.from;
    if (given.empty())
      fail(where, "[model] names no tokenizer; set 'tokenizer' (a file or directory) or 'vocab_size' (to train one)");
    prepared.tokenizer_dir = keep_tokenizer(given, run_dir, begun);
  }
  prepared.tokenizer = open_kept(prepared.tokenizer_dir);
  if (model.from.empty()) prepared.config = config_of(recipe, *prepared.tokenizer);
  check_vocabulary(prepared, model.tokenizer.empty(), where);
  if (!prepared.config.vision && model.max_tiles > 0)
    fail(where, "'model.max_tiles' has no effect: the model has no vision; leave it out");
  if (prepared.config.vision) {
    if (model.from.empty()) prepared.image_processor.tile_size = prepared.config.vision->image_size;
    if (model.max_tiles > 0) prepared.image_processor.max_tiles = model.max_tiles;
  }
  return prepared;
}

void prepare_data(const Recipe& recipe, const fs::path& run_dir, Prepared& prepared, const std::atomic<bool>* interrupt,
                  int64_t max_records) {
  const data::Encoding encoding = encoding_of(prepared);
  for (size_t i = 0; i < recipe.sources.size(); ++i)
    prepared.datasets.push_back(
        open_source(recipe, i, run_dir, encoding, interrupt, max_records, prepared.built.emplace_back()));
}

arch::Llama4Config stage_config(const arch::Llama4Config& base, const StageConfig& stage, std::string_view where) {
  if (stage.model.is_null()) return base;
  const std::string table = fmt::format("stage.{}.model", stage.name), path = table + ".";
  Json json = arch::config_to_hf(base), changes = stage.model;
  Json& text = json.contains("text_config") ? json["text_config"] : json;
  if (changes.contains("ntk_factor")) {
    const Json factor = changes["ntk_factor"];
    if (!factor.is_number() || !(factor.get<double>() >= 1))
      fail(where, "'{}ntk_factor' is {}; it must be 1 or more", path, factor.dump());
    const auto width = static_cast<double>(base.text.head_dim);
    changes.erase("ntk_factor");
    const Json theta = changes.value("rope_theta", Json(base.text.rope_theta));
    if (!theta.is_number()) fail(where, "'{}rope_theta' is {}; it must be a number", path, theta.dump());
    changes["rope_theta"] = theta.get<double>() * std::pow(factor.get<double>(), width / (width - 2));
  }
  Json known = text;
  known["rope_theta"] = known["rope_scaling"] = nullptr;
  check_keys(changes, known, where, path);
  // A v5 config has theta inside rope_parameters; a rope_scaling beside it wins.
  if (changes.contains("rope_theta") && text.contains("rope_parameters")) {
    text["rope_parameters"]["rope_theta"] = changes["rope_theta"];
    changes.erase("rope_theta");
  }
  for (const auto& [key, value] : changes.items()) text[key] = value;
  const arch::Llama4Config config = arch::config_from_hf(json, fmt::format("{} [{}]", where, table));
  const auto before = arch::parameter_table(base), after = arch::parameter_table(config);
  bool same = before.size() == after.size();
  for (size_t i = 0; same && i < before.size(); ++i)
    same = before[i].name == after[i].name && before[i].shape == after[i].shape;
  if (!same)
    fail(where, "'stage.{}.model' changes the shape of a weight; a stage may change rope, context and chunks",
         stage.name);
  return config;
}

std::unique_ptr<checkpoint::ModelSource> initial_weights(const Recipe& recipe, const arch::Llama4Config& config) {
  if (!recipe.model.from.empty()) return checkpoint::open_model(recipe.model.from);
  return checkpoint::random_model(config, recipe.seed, recipe.model.embedding_deviation);
}

std::shared_ptr<const data::Mixture> stage_mixture(const Recipe& recipe, size_t stage, const Prepared& prepared) {
  const StageConfig& config = recipe.stages[stage];
  std::vector<data::MixtureSource> sources;
  for (size_t i = 0; i < recipe.sources.size(); ++i) {
    const SourceConfig& source = recipe.sources[i];
    const double weight = config.weights.is_null() ? source.weight : config.weights.value(source.name, 0.0);
    if (weight > 0 && !source.validation)
      sources.push_back({source.name, prepared.datasets[i], weight, source.max_epochs});
  }
  return std::make_shared<data::Mixture>(std::move(sources), recipe.seed * 1000003 + stage,
                                         config.batch.sequence_length);
}

}  // namespace puna::train
