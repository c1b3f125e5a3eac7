#include "train/trainer.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "io/directory.h"
#include "io/file.h"
#include "io/hash.h"
#include "media/image_processor.h"
#include "train/check_settings.h"
#include "train/checkpoint.h"
#include "train/export.h"
#include "train/flops.h"
#include "train/memory_need.h"
#include "train/prepare.h"
#include "train/run_state.h"
#include "train/schedule.h"
#include "train/start_model.h"

namespace puna::train {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

at::ScalarType compute_dtype(const Recipe& recipe) {
  if (recipe.precision == "bfloat16") return at::kBFloat16;
  return recipe.precision == "float64" ? at::kDouble : at::kFloat;
}

// Which values two runs must share to be the same run, by name, for the error when they differ.
std::string first_difference(const Json& a, const Json& b) {
  const Json flat_a = a.flatten(), flat_b = b.flatten();
  for (const auto& [key, value] : flat_a.items())
    if (!flat_b.contains(key) || flat_b[key] != value)
      return fmt::format("{} was {}, is {}", key.substr(1), value.dump(),
                         flat_b.contains(key) ? flat_b[key].dump() : "gone");
  for (const auto& [key, value] : flat_b.items())
    if (!flat_a.contains(key)) return fmt::format("{} is new", key.substr(1));
  return "";
}

// What makes a run, without where its files were found: they are known by their contents.
Json settings_of(Json recipe) {
  for (const char* key : {"from", "tokenizer"}) recipe["model"].erase(key);
  for (Json& source : recipe["source"])
    for (const char* key : {"files", "file", "dataset"}) source.erase(key);
  return recipe;
}

Json begun_with(const fs::path& path) try { return read_json_file(path); } catch (const Error& error) {
  fail(path.string(), "tells what the run began with and cannot be read; start another run with out=DIR: {}",
       error.what());
}

class Run {
 public:
  Run(const Recipe& recipe, const TrainOptions& options)
      : recipe_(recipe), options_(options), dir_(recipe.out), where_(recipe.path.string()) {}

  Outcome go() {
    open_directory();
    // Another process must neither prepare nor cut what this one writes.
    const auto lock = io::lock_directory(dir_);
    if (!lock) fail(dir_.string(), "another process trains here; stop it first, or choose another with out=DIR");
    write_recipe();
    try {
      prepared_ = prepare_model(recipe_, dir_, options_.interrupt);
      if (options_.check_memory)
        train::check_memory(memory_need(recipe_, prepared_.config), available_memory_bytes(), where_);
      for (const std::string& warning : check_settings(recipe_, prepared_.config)) note("warning: " + warning);
      prepare_data(recipe_, dir_, prepared_, options_.interrupt);
    } catch (const Interrupted&) {
      return Outcome::kInterrupted;
    }
    plan_stages();
    if (!run_stages()) return Outcome::kInterrupted;
    learner_.reset();  // its memory: the model is read from the checkpoint
    export_model();
    return Outcome::kFinished;
  }

 private:
  // False when interrupted; what was done is saved either way.
  bool run_stages() {
    CheckpointWriter writer({.dir = dir_ / "checkpoints",
                             .keep_last = recipe_.checkpoint.keep_last,
                             .keep_every = recipe_.checkpoint.keep_every});
    start_or_resume();
    const double peak = measured_peak_flops(compute_dtype(recipe_));
    at::globalContext().setDeterministicAlgorithms(recipe_.deterministic, /*warn_only=*/false);
    // Else every buffer that is written whole right after would be filled with NaN first.
    at::globalContext().setDeterministicFillUninitializedMemory(false);
    while (stage_ < recipe_.stages.size()) {
      if (!run_stage(writer, peak)) {
        stop(writer);
        return false;
      }
      ++stage_;
      stage_step_ = 0;
      next_sample_ = 0;
    }
    stop(writer);
    return true;
  }

  void note(const std::string& text) const {
    if (options_.on_note) options_.on_note(text);
  }

  void open_directory() {
    const fs::path path = dir_ / "recipe.json";
    if (options_.resume && !fs::exists(path))
      fail(dir_.string(), "holds no run to resume; leave out --resume to start one");
    if (begun() && !options_.resume)
      fail(dir_.string(), "holds a run already; go on with --resume, or choose another directory with out=DIR");
    std::error_code error;
    fs::create_directories(dir_, error);
    if (error) fail(dir_.string(), "cannot be made: {}; choose another with out=DIR", error.message());
  }

  // Before its first step a recipe may still be corrected.
  bool begun() const {
    const bool steps = fs::exists(dir_ / "metrics.jsonl") || !checkpoint_steps(dir_ / "checkpoints").empty();
    return steps && fs::exists(dir_ / "recipe.json");
  }

  void write_recipe() const {
    const Json json = recipe_to_json(recipe_);
    const fs::path path = dir_ / "recipe.json";
    if (!begun()) {
      if (fs::exists(dir_ / "model"))
        fail(dir_.string(), "holds a model that is not of this run; choose another directory with out=DIR");
      io::write_file(path, json.dump(2) + "\n");
      return;
    }
    const std::string difference = first_difference(settings_of(begun_with(path)), settings_of(json));
    if (!difference.empty())
      fail(where_, "is not the recipe that {} was started with: {}; use the same, or start another run with out=DIR",
           dir_.string(), difference);
  }

  // Before the first step, so that no stage is refused hours later.
  void plan_stages() {
    for (size_t i = 0; i < recipe_.stages.size(); ++i) {
      const StageConfig& stage = recipe_.stages[i];
      configs_.push_back(stage_config(prepared_.config, stage, where_));
      mixtures_.push_back(stage_mixture(recipe_, i, prepared_));
      for (size_t s = 0; s < recipe_.sources.size(); ++s)
        if (recipe_.sources[s].validation) validation_mixture(s, stage);
    }
  }

  // Whole or not at all: a run that was killed meanwhile writes it again.
  void export_model() const {
    const fs::path model = dir_ / "model", made = dir_ / "model.tmp";
    if (fs::exists(model)) return;
    fs::remove_all(made);
    export_run({.run = dir_, .average = {}, .on_note = options_.on_note}, made);
    fs::rename(made, model);
  }

  std::map<std::string, std::string> data_hashes() const {
    std::map<std::string, std::string> hashes;
    for (size_t i = 0; i < recipe_.sources.size(); ++i)
      hashes[recipe_.sources[i].name] = prepared_.datasets[i]->content_hash();
    return hashes;
  }

  std::string recipe_hash() const {
    const std::string text = settings_of(recipe_to_json(recipe_)).dump();
    return io::hash_of(std::as_bytes(std::span(text)));
  }

  // A checkpoint of other settings, or of more steps than the metrics tell of, is passed over.
  void check_settled(const RunState& state, const std::string& where) const {
    if (!state.recipe.empty() && state.recipe != recipe_hash())
      fail(where, "is of a recipe with other settings than {}", (dir_ / "recipe.json").string());
    const fs::path metrics = dir_ / "metrics.jsonl";
    const int64_t bytes = fs::exists(metrics) ? static_cast<int64_t>(fs::file_size(metrics)) : 0;
    if (bytes < state.metrics_bytes)
      fail(where, "was made after {} bytes of {}, which has {}; was it cut?", state.metrics_bytes, metrics.string(),
           bytes);
  }

  // The newest checkpoint that fits this run; its state becomes `state`.
  Checkpoint load(RunState& state, at::ScalarType wide) const {
    const auto check = [&](const Checkpoint& checkpoint, const std::string& where) {
      state = read_state(checkpoint.state, where);
      check_settled(state, where);
      check_position(state, checkpoint.step, recipe_, where);
      check_tensors(checkpoint, state, prepared_.config, wide, where);
    };
    return load_newest_checkpoint(
               dir_ / "checkpoints", [this](const std::string& t) { note(t); }, check)
        .checkpoint;
  }

  void start_or_resume() {
    std::map<std::string, at::Tensor> masters;
    const at::ScalarType wide = compute_dtype(recipe_) == at::kDouble ? at::kDouble : at::kFloat;
    Checkpoint checkpoint;
    RunState state;
    const bool resume = options_.resume && !checkpoint_steps(dir_ / "checkpoints").empty();
    if (resume) {
      checkpoint = load(state, wide);
      masters = weights_of(checkpoint);
    } else {
      const auto source = initial_weights(recipe_, prepared_.config);
      for (const arch::ParamRow& row : source->rows()) masters[row.name] = source->load(row, wide).clone();
    }
    learner_ = std::make_unique<Learner>(std::move(masters), compute_dtype(recipe_), parallel::self_comm());
    if (resume) restore(checkpoint, state);
    log_ = std::make_unique<RunLog>(dir_, state.metrics_bytes, step_ + 1);
    io::sync_directory(dir_);
    if (resume) note(fmt::format("going on after step {} of {}", step_, recipe_.total_steps()));
  }

  void restore(const Checkpoint& checkpoint, const RunState& state) {
    const auto hashes = data_hashes();
    for (const auto& [name, hash] : state.data)
      if (hashes.at(name) != hash)
        fail(where_, "the data of source '{}' are not those that {} was trained on; start another run with out=DIR",
             name, dir_.string());
    const size_t stage = std::min(static_cast<size_t>(state.stage), recipe_.stages.size() - 1);
    const std::string difference = first_difference(state.config, arch::config_to_hf(configs_.at(stage)));
    if (!difference.empty())
      fail(where_, "the config in {} has changed: {}; restore it, or start another run with out=DIR",
           (dir_ / "from").string(), difference);
    if (state.threads > 0 && state.threads != at::get_num_threads())
      note(fmt::format(
          "warning: the steps so far ran on {} threads, now there are {}: sums are rounded otherwise, so that "
          "losses will differ in the last digits",
          state.threads, at::get_num_threads()));
    step_ = saved_step_ = checkpoint.step;
    stage_ = static_cast<size_t>(state.stage);
    stage_step_ = state.stage_step;
    next_sample_ = static_cast<uint64_t>(state.next_sample);
    all_tokens_ = state.tokens;
    losses_ = state.losses;
    norms_ = state.norms;
    dead_ = state.dead_experts;
    restore_learner(checkpoint, state, prepared_.config, *learner_);
  }

  void save(CheckpointWriter& writer) {
    if (step_ == saved_step_) return;
    log_->sync();
    Checkpoint checkpoint;
    checkpoint.step = step_;
    RunState state;
    store_learner(*learner_, checkpoint, state);
    if (const std::string bad = first_not_finite_weight(checkpoint); !bad.empty())
      throw NotFinite(
          fmt::format("step {}: '{}' is not finite after the update; it was not saved, older "
                      "checkpoints are intact. Lower the learning rate or the weight decay, in "
                      "another run with out=DIR",
                      step_, bad));
    state.stage = static_cast<int64_t>(stage_);
    state.stage_step = stage_step_;
    state.next_sample = static_cast<int64_t>(next_sample_);
    state.tokens = all_tokens_;
    state.metrics_bytes = log_->metrics_bytes();
    state.losses = losses_;
    state.norms = norms_;
    state.dead_experts = dead_;
    state.data = data_hashes();
    state.recipe = recipe_hash();
    state.threads = at::get_num_threads();
    state.config = arch::config_to_hf(stage_config_);
    state.tokenizer = fs::absolute(prepared_.tokenizer_dir).string();
    if (prepared_.config.vision) state.image_processor = media::image_processor_json(prepared_.image_processor);
    state.generation = recipe_.model.generation;
    checkpoint.state = to_json(state);
    writer.save(checkpoint);
    saved_step_ = step_;
  }

  // False when interrupted.
  bool run_stage(CheckpointWriter& writer, double peak) {
    const StageConfig& stage = recipe_.stages[stage_];
    stage_config_ = configs_[stage_];
    learner_->begin_stage(stage_config_, stage, recipe_.recompute);
    if (stage.optimizer.reset && stage_step_ == 0) learner_->optimizer().reset();
    const auto& mixture = mixtures_[stage_];
    source_names_.clear();
    for (const data::MixtureSource& source : mixture->sources()) source_names_.push_back(source.name);
    BatchLoader loader(mixture, stage.batch, prepared_.image_processor, next_sample_);
    while (stage_step_ < stage.steps) {
      const bool stop = (options_.interrupt != nullptr && *options_.interrupt) ||
                        (options_.stop_after > 0 && steps_here_ >= options_.stop_after);
      if (stop) return false;
      run_step(stage, loader, writer, peak);
      writer.check();  // a full disk is told at once, not at the next checkpoint
      const int64_t every = recipe_.checkpoint.every;
      if (every > 0 && step_ % every == 0) save(writer);
    }
    return true;
  }

  // What was learned so far is saved when the data end or prove damaged.
  StepBatch next_batch(BatchLoader& loader, bool prefetch_next, CheckpointWriter& writer) {
    try {
      return loader.next(prefetch_next);
    } catch (const Error&) {
      stop_after_error(writer);
      throw;
    }
  }

  // A step that is not finite has changed nothing: the steps before it are saved, and all its documents are told.
  StepResult step_or_save(const StepBatch& batch, double rate, CheckpointWriter& writer) {
    try {
      return learner_->step(batch, rate, source_names_.size(), step_ + 1);
    } catch (const NotFinite& error) {
      stop_after_error(writer);
      if (batch.documents.size() <= kMaxShownDocuments) throw;
      const fs::path list = dir_ / fmt::format("not-finite-{:08}.txt", step_ + 1);
      io::write_file(list, fmt::format("{}\n", fmt::join(batch.documents, "\n")));
      throw NotFinite(
          fmt::format("{}; all {} are listed in {}", error.reason(), batch.documents.size(), list.string()));
    }
  }

  void run_step(const StageConfig& stage, BatchLoader& loader, CheckpointWriter& writer, double peak) {
    const auto start = Clock::now();
    const StepBatch batch = next_batch(loader, stage_step_ + 1 < stage.steps, writer);
    StepReport report;
    report.data_wait_seconds = seconds_since(start);
    report.learning_rate = learning_rate(stage.schedule, stage.optimizer.learning_rate, stage_step_, stage.steps);
    report.result = step_or_save(batch, report.learning_rate, writer);
    ++step_;
    ++stage_step_;
    ++steps_here_;
    next_sample_ = batch.next_sample;
    all_tokens_ += batch.num_tokens;

    report.step = step_;
    report.total_steps = recipe_.total_steps();
    report.stage = stage.name;
    report.tokens = batch.num_tokens;
    report.all_tokens = all_tokens_;
    report.targets = batch.num_targets;
    report.images = batch.num_images;
    report.loads = layer_loads(report.result.routing);
    judge(report, recipe_.log.outlier_z, losses_, norms_);
    report.warnings = dead_.update(report.loads, stage.balance);
    report.seconds = seconds_since(start);
    report.flops = step_flops(stage_config_, batch);
    report.mfu = report.flops / (report.seconds * peak);
    const int64_t every = recipe_.validation.every;
    if (every > 0 && (step_ % every == 0 || step_ == report.total_steps)) report.validation = validate(stage);
    log_->write(report, source_names_, step_ % recipe_.log.details_every == 0);
    if (options_.on_step) options_.on_step(report);
  }

  data::Mixture validation_mixture(size_t source, const StageConfig& stage) const {
    return {{{recipe_.sources[source].name, prepared_.datasets[source], 1, /*max_epochs=*/1}},
            recipe_.seed,
            stage.batch.sequence_length};
  }

  // Each validation source on its own, always on the same first samples.
  std::map<std::string, LossSum> validate(const StageConfig& stage) const {
    std::map<std::string, LossSum> losses;
    for (size_t i = 0; i < recipe_.sources.size(); ++i) {
      const SourceConfig& source = recipe_.sources[i];
      if (!source.validation) continue;
      const LossSum sum = validation_loss(validation_mixture(i, stage), stage.batch);
      if (sum.targets > 0) losses[source.name] = sum;
    }
    return losses;
  }

  // In batches no larger than those of training, until there are enough tokens or no more data.
  LossSum validation_loss(const data::Mixture& mixture, BatchConfig batch) const {
    LossSum sum;
    uint64_t sample = 0;
    for (int64_t left = std::max(recipe_.validation.tokens, batch.sequence_length); left > 0;) {
      batch.tokens = std::min(batch.tokens, left);
      StepBatch part;
      try {
        part = make_step_batch(mixture, batch, prepared_.image_processor, sample);
      } catch (const data::OutOfData&) {
        if (sample == 0) throw;
        break;
      }
      const LossSum of_part = learner_->evaluate(part);
      sum.nll += of_part.nll;
      sum.targets += of_part.targets;
      sample = part.next_sample;
      left -= part.num_tokens;
    }
    return sum;
  }

  void stop(CheckpointWriter& writer) {
    save(writer);
    writer.wait();
  }

  // The reason of the stop is what the user needs first, not that saving failed too.
  void stop_after_error(CheckpointWriter& writer) {
    try {
      stop(writer);
    } catch (const Error& error) {
      note(fmt::format("warning: what was learned since the last checkpoint could not be saved: {}", error.what()));
    }
  }

  const Recipe& recipe_;
  const TrainOptions& options_;
  fs::path dir_;
  std::string where_;
  Prepared prepared_;
  std::unique_ptr<Learner> learner_;
  std::unique_ptr<RunLog> log_;
  arch::Llama4Config stage_config_;
  std::vector<arch::Llama4Config> configs_;                     // [stages]
  std::vector<std::shared_ptr<const data::Mixture>> mixtures_;  // [stages]
  std::vector<std::string> source_names_;                       // of the stage
  size_t stage_ = 0;
  int64_t step_ = 0, stage_step_ = 0, steps_here_ = 0, all_tokens_ = 0, saved_step_ = -1;
  uint64_t next_sample_ = 0;
  OutlierDetector losses_, norms_;
  DeadExperts dead_;
};

}  // namespace

Outcome train(const Recipe& recipe, const TrainOptions& options) { return Run(recipe, options).go(); }

}  // namespace puna::train
