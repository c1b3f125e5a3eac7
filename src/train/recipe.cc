#include "train/recipe.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "io/file.h"
#include "io/text.h"
#include "train/fields.h"
#include "train/recipe_fields.h"
#include "train/toml_file.h"

namespace puna::train {
namespace {

constexpr int64_t kMostTiles = 256;  // as media::kMaxTiles; the fuzz target of recipes is without LibTorch

namespace fs = std::filesystem;

constexpr int64_t kMaxRecipeBytes = 4 << 20;

// What the base has in tables and a stage may change.
struct Tables {
  Json batch = Json::object(), optimizer = Json::object(), schedule = Json::object(), balance = Json::object();
};

template <class V>
void visit(V& v, Tables& t) {
  v("batch", t.batch, "");
  v("optimizer", t.optimizer, "");
  v("schedule", t.schedule, "");
  v("balance", t.balance, "");
}

// Reads what both structs know from one object.
struct WithTables {
  StageConfig& stage;
  Tables& tables;
};
template <class V>
void visit(V& v, WithTables& both) {
  visit(v, both.stage);
  visit(v, both.tables);
  v("model", both.stage.model, "");
}

struct Top {
  Recipe& recipe;
  Tables& tables;
  Json &model, &checkpoint, &log, &validation, &source, &stage, &steps;
};
template <class V>
void visit(V& v, Top& top) {
  visit(v, top.recipe);
  visit(v, top.tables);
  v("model", top.model, "");
  v("checkpoint", top.checkpoint, "");
  v("log", top.log, "");
  v("validation", top.validation, "");
  v("source", top.source, "");
  v("stage", top.stage, "");
  v("steps", top.steps, "");
}

// The "name" of a table, where it is a text.
std::string name_in(const Json& json) {
  if (!json.is_object() || !json.contains("name") || !json["name"].is_string()) return "";
  return json["name"].get<std::string>();
}

// What is no table is left for the reader to refuse.
Json merged(Json base, const Json& change) {
  if (!base.is_object()) return base;
  if (!change.is_object()) return change;
  for (const auto& [key, value] : change.items()) base[key] = value;
  return base;
}

// What a table of an array is called in overrides and messages: its name, else its number, from 0.
std::string called(const Json& array, size_t index) {
  const std::string name = name_in(array[index]);
  return name.empty() ? fmt::format("{}", index) : name;
}

// "a.b.c" = value; in the arrays of sources and stages the second part is a name or a number.
void override_one(Json& json, const std::string& text, std::string_view where) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0)
    throw UsageError(where, fmt::format("'{}' is no key=value, such as optimizer.learning_rate=3e-4", text));
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= equals;) {
    const size_t end = std::min(text.find('.', begin), equals);
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  Json* at = &json;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    if (at->is_array()) {
      Json* found = nullptr;
      std::vector<std::string> names;
      for (size_t n = 0; n < at->size(); ++n) {
        names.push_back(called(*at, n));
        if (names.back() == parts[i]) found = &(*at)[n];
      }
      if (found == nullptr)
        fail(where, "{}: no {} is called '{}'; they are called {} (a number where one has no name)", text, parts[i - 1],
             parts[i], fmt::join(names, ", "));
      at = found;
      continue;
    }
    if (!at->is_object()) fail(where, "{}: '{}' is no table", text, parts[i]);
    at = &(*at)[parts[i]];
    if (at->is_null()) *at = Json::object();
  }
  if (!at->is_object())
    fail(where, "{}: name one of them, such as stage.NAME.steps=100, or stage.0.steps=100 where it has no name", text);
  (*at)[parts.back()] = parse_toml_value(std::string_view(text).substr(equals + 1), text);
}

void check_number(bool good, std::string_view where, std::string_view key, double value, std::string_view wanted) {
  if (!good) fail(where, "'{}' is {}; it must be {}", key, value, wanted);
}

void check_one_of(std::string_view where, std::string_view key, const std::string& value,
                  const std::vector<std::string>& choices) {
  for (const std::string& choice : choices)
    if (value == choice) return;
  const std::string nearest = nearest_name(value, choices);
  fail(where, "'{}' is '{}'{}; it must be one of {}", key, value,
       nearest.empty() ? "" : fmt::format(" (did you mean '{}'?)", nearest), fmt::join(choices, ", "));
}

// Of what a stage is trained on; validation sources are only measured.
void check_shares(const StageConfig& s, std::string_view where, const std::vector<SourceConfig>& sources) {
  const std::string key = "stage." + s.name + ".weights";
  if (!s.weights.is_null() && !s.weights.is_object()) fail(where, "'{}' must be a table of source = share", key);
  std::vector<std::string> names, zeros;
  for (const SourceConfig& source : sources) names.push_back(source.name);
  for (const auto& [name, weight] : s.weights.items()) {
    check_one_of(where, key, name, names);
    if (!weight.is_number() || weight.get<double>() < 0)
      fail(where, "'{}.{}' is {}; it must be a number, 0 or more", key, name, weight.dump());
  }
  for (const SourceConfig& source : sources) {
    if (source.validation) continue;
    if ((s.weights.is_null() ? source.weight : s.weights.value(source.name, 0.0)) > 0) return;
    zeros.push_back("source." + source.name + ".weight");
  }
  if (s.weights.is_null())
    fail(where, "stage '{}' would be trained on nothing: '{}' {} 0; raise one", s.name, fmt::join(zeros, "', '"),
         zeros.size() > 1 ? "are all" : "is");
  fail(where, "'{}' are all 0; nothing would be trained on", key);
}

void check_stage(const StageConfig& s, std::string_view where, const std::vector<SourceConfig>& sources) {
  const std::string prefix = "stage." + s.name + ".";
  const auto number = [&](bool good, std::string_view key, auto value, std::string_view wanted) {
    check_number(good, where, prefix + std::string(key), static_cast<double>(value), wanted);
  };
  number(s.steps >= 1 && s.steps <= int64_t{1} << 40, "steps", s.steps, "at least 1, at most 2^40");
  number(s.batch.sequence_length >= 2, "batch.sequence_length", s.batch.sequence_length, "at least 2");
  number(s.batch.tokens >= s.batch.sequence_length && s.batch.tokens < int64_t{1} << 31, "batch.tokens", s.batch.tokens,
         "at least the sequence length, below 2^31");
  number(s.batch.micro_tokens == 0 || s.batch.micro_tokens >= s.batch.sequence_length, "batch.micro_tokens",
         s.batch.micro_tokens, "at least the sequence length, or 0");
  const OptimizerConfig& o = s.optimizer;
  number(o.learning_rate > 0 && o.learning_rate <= 10, "optimizer.learning_rate", o.learning_rate, "above 0, up to 10");
  number(o.vision_rate > 0 && o.vision_rate <= 100, "optimizer.vision_rate", o.vision_rate, "above 0, up to 100");
  number(o.beta1 >= 0 && o.beta1 < 1, "optimizer.beta1", o.beta1, "from 0 to below 1");
  number(o.beta2 >= 0 && o.beta2 < 1, "optimizer.beta2", o.beta2, "from 0 to below 1");
  number(o.epsilon > 0, "optimizer.epsilon", o.epsilon, "above 0");
  const double most = 1 / (o.learning_rate * std::max(1.0, o.vision_rate));
  number(o.weight_decay >= 0 && o.weight_decay < most, "optimizer.weight_decay", o.weight_decay,
         fmt::format("from 0 to below {:g}, so that a step takes less than the whole weight", most));
  number(o.clip_norm >= 0, "optimizer.clip_norm", o.clip_norm, "0 or more");
  check_one_of(where, prefix + "schedule.kind", s.schedule.kind, {"constant", "linear", "cosine", "wsd"});
  number(s.schedule.warmup_steps >= 0 && s.schedule.warmup_steps <= s.steps, "schedule.warmup_steps",
         s.schedule.warmup_steps, "from 0 to the stage's steps");
  number(s.schedule.decay_steps >= 0 && s.schedule.decay_steps <= s.steps - s.schedule.warmup_steps,
         "schedule.decay_steps", s.schedule.decay_steps, "from 0 to the steps after the warmup");
  number(s.schedule.final_fraction >= 0 && s.schedule.final_fraction <= 1, "schedule.final_fraction",
         s.schedule.final_fraction, "from 0 to 1");
  const BalanceConfig& b = s.balance;
  number(b.bias_rate >= 0 && b.bias_rate < 1, "balance.bias_rate", b.bias_rate, "from 0 to below 1");
  number(b.load_balance_weight >= 0, "balance.load_balance_weight", b.load_balance_weight, "0 or more");
  number(b.router_z_weight >= 0, "balance.router_z_weight", b.router_z_weight, "0 or more");
  number(b.dead_fraction >= 0 && b.dead_fraction < 1, "balance.dead_fraction", b.dead_fraction, "from 0 to below 1");
  number(b.dead_steps >= 1, "balance.dead_steps", b.dead_steps, "at least 1");
  for (const std::string& part : s.freeze)
    check_one_of(where, prefix + "freeze", part, {"text", "vision", "router", "embedding"});
  check_shares(s, where, sources);
}

// Of a source that is not generated.
void check_generator_keys(const SourceConfig& s, std::string_view where) {
  for (const auto& [key, given] : {std::pair{"documents", s.documents != 0},
                                   {"seed", s.seed != 0},
                                   {"length", s.length != 0},
                                   {"file", !s.file.empty()}})
    if (given)
      fail(where, "'source.{}.{}' has no effect on {}; it is for 'generate' alone, leave it out", s.name, key,
           s.files.empty() ? "a dataset" : "files");
}

void check_source(const SourceConfig& s, std::string_view where) {
  if (s.name.empty()) fail(where, "a [[source]] has no name");
  if (s.name.find_first_of(std::string_view("/\0", 2)) != s.name.npos || s.name.starts_with('.'))
    fail(where, "source '{}' cannot have a directory of this name; name it without '/' and a dot in front",
         io::printable(s.name));
  const int kinds = !s.files.empty() + !s.generate.empty() + !s.dataset.empty();
  if (kinds != 1) fail(where, "source '{}' needs exactly one of files, generate and dataset", s.name);
  if (s.generate.empty()) check_generator_keys(s, where);
  if (!s.generate.empty() && s.documents < 1)
    fail(where, "source '{}' generates {} documents; set documents to at least 1", s.name, s.documents);
  check_number(s.weight >= 0 && std::isfinite(s.weight), where, "source." + s.name + ".weight", s.weight, "0 or more");
  check_number(s.max_epochs >= 0, where, "source." + s.name + ".max_epochs", s.max_epochs, "0 or more");
  check_number(s.length >= 0, where, "source." + s.name + ".length", static_cast<double>(s.length), "0 or more");
}

// Keys of [schedule] that no kind of theirs reads. Those of the base are for the stages that do not set them.
void check_schedule_keys(const Recipe& r, const Json& base, const std::vector<Json>& own, std::string_view where) {
  const auto has = [](const Json& table, const char* key) { return table.is_object() && table.contains(key); };
  for (const auto& [key, kinds] :
       {std::pair{"final_fraction", "linear, cosine or wsd"}, std::pair{"decay_steps", "wsd"}}) {
    bool read = false;
    for (size_t i = 0; i < r.stages.size(); ++i) {
      const std::string& kind = r.stages[i].schedule.kind;
      const bool reads = kind == "wsd" || (kind != "constant" && std::string_view(key) == "final_fraction");
      if (has(own[i], key) && !reads)
        fail(where, "'stage.{}.schedule.{}' has no effect with kind '{}'; leave it out, or set kind to {}",
             r.stages[i].name, key, kind, kinds);
      read = read || (reads && !has(own[i], key));
    }
    if (has(base, key) && !read)
      fail(where, "'schedule.{}' has no effect on any stage; leave it out, or set kind to {}", key, kinds);
  }
}

void check_generation(const Json& generation, std::string_view where) {
  if (generation.is_null()) return;
  if (!generation.is_object()) fail(where, "'model.generation' must be a table");
  for (const auto& [key, value] : generation.items()) {
    check_one_of(where, "model.generation", key, {"do_sample", "temperature", "top_p", "top_k"});
    const bool whole = key == "top_k", flag = key == "do_sample";
    if (flag ? !value.is_boolean() : whole ? !value.is_number_integer() : !value.is_number())
      fail(where, "'model.generation.{}' is {}; it must be {}", key, value.dump(),
           flag    ? "true or false"
           : whole ? "a whole number"
                   : "a number");
  }
}

void check_model(const ModelConfig& m, std::string_view where) {
  check_number(m.embedding_deviation > 0 && m.embedding_deviation <= 100, where, "model.embedding_deviation",
               m.embedding_deviation, "above 0, up to 100");
  if (!m.config.is_null() && !m.config.is_object())
    fail(where,
         "'model.config' is no table; write [model.config.text_config] and keys as in Hugging Face's config.json");
  if (m.from.empty() && !m.config.is_object())
    fail(where, "[model] has neither 'from' (a checkpoint) nor 'config' (a table); give one");
  if (m.max_tiles < 0 || m.max_tiles > kMostTiles)
    fail(where, "'model.max_tiles' is {}; give 1 to {}, or 0", m.max_tiles, kMostTiles);
  check_generation(m.generation, where);
  if (!m.from.empty() && !m.config.is_null())
    fail(where, "[model] has both 'from' and 'config'; a checkpoint brings its own config");
  if (!m.from.empty() && m.embedding_deviation != ModelConfig().embedding_deviation)
    fail(where, "'model.embedding_deviation' has no effect with 'from', which brings the weights; leave it out");
  if (m.single_digits && m.vocab_size == 0)
    fail(where, "'model.single_digits' has no effect without 'vocab_size'; leave it out, or train a tokenizer");
}

void check_precision(const std::string& given, std::string_view where) {
  for (const auto& [name, meant] : {std::pair{"bf16", "bfloat16"}, {"fp32", "float32"}, {"fp64", "float64"}})
    if (given == name) fail(where, "'precision' is '{}'; did you mean '{}'?", given, meant);
  check_one_of(where, "precision", given, {"float32", "float64", "bfloat16"});
}

void check_recipe(const Recipe& r, std::string_view where) {
  check_precision(r.precision, where);
  check_number(r.threads >= 0 && r.threads <= 1024, where, "threads", r.threads, "from 0 to 1024");
  check_number(r.checkpoint.every >= 0, where, "checkpoint.every", static_cast<double>(r.checkpoint.every),
               "0 or more");
  check_number(r.checkpoint.keep_last >= 0, where, "checkpoint.keep_last", r.checkpoint.keep_last, "0 or more");
  check_number(r.checkpoint.keep_every >= 0, where, "checkpoint.keep_every",
               static_cast<double>(r.checkpoint.keep_every), "0 or more");
  if (r.checkpoint.keep_every > 0 && r.checkpoint.keep_last == 0)
    fail(where, "'checkpoint.keep_every' has no effect with keep_last = 0, which keeps all; leave one of them out");
  check_number(r.log.details_every >= 1, where, "log.details_every", static_cast<double>(r.log.details_every),
               "at least 1");
  check_number(r.log.outlier_z > 0, where, "log.outlier_z", r.log.outlier_z, "above 0");
  check_number(r.validation.every >= 0, where, "validation.every", static_cast<double>(r.validation.every),
               "0 or more");
  check_number(r.validation.tokens >= 2, where, "validation.tokens", static_cast<double>(r.validation.tokens),
               "at least 2");
  if (std::ranges::all_of(r.sources, [](const SourceConfig& source) { return source.validation; }))
    fail(where, "there is no [[source]]; name at least one, with files, generate or dataset");
  std::set<std::string> names;
  for (const SourceConfig& source : r.sources) {
    check_source(source, where);
    if (!names.insert(source.name).second) fail(where, "two sources are called '{}'", source.name);
  }
  names.clear();
  for (const StageConfig& stage : r.stages) {
    check_stage(stage, where, r.sources);
    if (!names.insert(stage.name).second) fail(where, "two stages are called '{}'", stage.name);
  }
  check_model(r.model, where);
}

const Json& array_of(const Json& json, std::string_view where, std::string_view key) {
  static const Json empty = Json::array();
  if (json.is_null()) return empty;
  if (!json.is_array()) fail(where, "'{}' must be written as [[{}]]", key, key);
  return json;
}

void resolve_path(std::string& path, const fs::path& base) {
  if (!path.empty() && fs::path(path).is_relative()) path = (base / path).lexically_normal().string();
}

StageConfig read_stage(const Json& json, const std::string& name, const Tables& base, Tables& own,
                       std::string_view where) {
  StageConfig stage;
  WithTables both{stage, own};
  stage.name = name;
  const std::string path = "stage." + name;
  FieldReader reader(json, where, path);
  visit(reader, both);
  reader.finish();
  read_fields(stage.batch, merged(base.batch, own.batch), where, path + ".batch");
  read_fields(stage.optimizer, merged(base.optimizer, own.optimizer), where, path + ".optimizer");
  read_fields(stage.schedule, merged(base.schedule, own.schedule), where, path + ".schedule");
  read_fields(stage.balance, merged(base.balance, own.balance), where, path + ".balance");
  if (!stage.model.is_null() && !stage.model.is_object()) fail(where, "'{}.model' must be a table", path);
  return stage;
}

}  // namespace

int64_t Recipe::total_steps() const {
  int64_t steps = 0;
  for (const StageConfig& stage : stages) steps += stage.steps;
  return steps;
}

Recipe parse_recipe(std::string_view toml, std::string_view where, const fs::path& base,
                    const std::vector<std::string>& overrides) {
  Json json = parse_toml(toml, where);
  for (const std::string& text : overrides) override_one(json, text, where);
  Recipe recipe;
  Tables tables;
  Json model = Json::object(), checkpoint = Json::object(), log = Json::object(), validation = Json::object(), source,
       stage, steps;
  Top top{recipe, tables, model, checkpoint, log, validation, source, stage, steps};
  read_fields(top, json, where, "");
  read_fields(recipe.model, model, where, "model");
  read_fields(recipe.checkpoint, checkpoint, where, "checkpoint");
  read_fields(recipe.log, log, where, "log");
  read_fields(recipe.validation, validation, where, "validation");
  for (const Json& item : array_of(source, where, "source")) {
    SourceConfig config;
    read_fields(config, item, where, "source." + name_in(item));
    for (std::string& file : config.files) resolve_path(file, base);
    resolve_path(config.dataset, base);
    resolve_path(config.file, base);
    recipe.sources.push_back(config);
  }
  if (!steps.is_null() && !stage.is_null()) fail(where, "'steps' belongs into each [[stage]] when there are stages");
  Json stages = array_of(stage, where, "stage");
  if (stage.is_null()) {
    stages.push_back({{"name", "train"}});
    if (!steps.is_null()) stages[0]["steps"] = steps;
  }
  std::vector<Json> schedules;  // the stages' own
  for (size_t i = 0; i < stages.size(); ++i) {
    Tables own;
    recipe.stages.push_back(read_stage(stages[i], called(stages, i), tables, own, where));
    schedules.push_back(own.schedule);
  }
  resolve_path(recipe.model.from, base);
  resolve_path(recipe.model.tokenizer, base);
  check_recipe(recipe, where);
  check_schedule_keys(recipe, tables.schedule, schedules, where);
  return recipe;
}

Recipe read_recipe(const fs::path& path, const std::vector<std::string>& overrides) {
  Recipe recipe = parse_recipe(io::read_file(path, kMaxRecipeBytes), path.string(), path.parent_path(), overrides);
  recipe.path = path;
  if (recipe.out.empty()) recipe.out = (fs::path("runs") / path.stem()).string();
  return recipe;
}

Json recipe_to_json(const Recipe& recipe) {
  Json json = write_fields(recipe);
  json.erase("out");
  json.erase("threads");
  json["model"] = write_fields(recipe.model);
  json["log"] = write_fields(recipe.log);
  json["validation"] = write_fields(recipe.validation);
  json["source"] = Json::array();
  for (const SourceConfig& source : recipe.sources) json["source"].push_back(write_fields(source));
  json["stage"] = Json::array();
  for (const StageConfig& stage : recipe.stages) {
    Json item = write_fields(stage);
    item["batch"] = write_fields(stage.batch);
    item["optimizer"] = write_fields(stage.optimizer);
    item["schedule"] = write_fields(stage.schedule);
    item["balance"] = write_fields(stage.balance);
    item["model"] = stage.model;
    json["stage"].push_back(item);
  }
  return json;
}

namespace {

// Prints "  key = default   # help" for every field.
struct FieldPrinter {
  std::string text;
  template <typename T>
  void operator()(const char* key, const T& value, const char* help) {
    if (*help != '\0') text += fmt::format("  {:<42} # {}\n", fmt::format("{} = {}", key, Json(value).dump()), help);
  }
};

template <typename T>
std::string keys_of(const char* title) {
  T config;
  FieldPrinter printer;
  visit(printer, config);
  return fmt::format("{}\n{}", title, printer.text);
}

}  // namespace

std::string describe_recipe_keys() {
  FieldPrinter steps;
  steps("steps", 0, "optimizer steps, when there is no [[stage]]");
  std::string stage_model = "[stage.model]  (absent: as in the model's config)\n";
  for (const StageModelKey& key : kStageModelKeys) stage_model += fmt::format("  {:<42} # {}\n", key.key, key.help);
  return keys_of<Recipe>("top level") + steps.text + keys_of<ModelConfig>("[model]") + keys_of<BatchConfig>("[batch]") +
         keys_of<OptimizerConfig>("[optimizer]") + keys_of<ScheduleConfig>("[schedule]") +
         keys_of<BalanceConfig>("[balance]") + keys_of<CheckpointConfig>("[checkpoint]") + keys_of<LogConfig>("[log]") +
         keys_of<ValidationConfig>("[validation]") + keys_of<SourceConfig>("[[source]]") +
         keys_of<StageConfig>("[[stage]]  (and its own [stage.batch], .optimizer, .schedule, .balance)") + stage_model;
}

}  // namespace puna::train
