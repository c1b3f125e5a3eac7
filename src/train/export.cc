#include "train/export.h"

#include <algorithm>

#include "base/error.h"
#include "checkpoint/save.h"
#include "checkpoint/tensor_models.h"
#include "io/file.h"
#include "media/image_processor.h"
#include "train/checkpoint.h"
#include "train/run_state.h"
#include "train/start_model.h"

namespace puna::train {
namespace {

namespace fs = std::filesystem;
using Note = std::function<void(const std::string&)>;
using Weights = std::map<std::string, at::Tensor>;

constexpr int64_t kMaxTokenizerBytes = int64_t{256} << 20;

struct Trained {
  int64_t step = 0;
  RunState state;
  arch::Llama4Config config;
  Weights weights;  // by Puna's name
};

Trained load_trained(const fs::path& run, int64_t step, const Note& on_note) {
  const fs::path checkpoints = run / "checkpoints";
  const std::vector<int64_t> steps = checkpoint_steps(checkpoints);
  if (!fs::exists(run / "recipe.json")) fail(run.string(), "is no directory of a run of puna train");
  if (steps.empty())
    fail(run.string(), "has no checkpoint yet; train on with --resume, or set 'checkpoint.every' in the recipe");
  if (step >= 0 && std::find(steps.begin(), steps.end(), step) == steps.end())
    fail((checkpoints / fmt::format("step-{:08}", step)).string(),
         "is not there; the run has checkpoints of the steps {}", fmt::join(steps, ", "));
  Trained trained;
  const auto check = [&](const Checkpoint& checkpoint, const std::string& where) {
    trained.state = read_state(checkpoint.state, where);
    trained.config = arch::config_from_hf(trained.state.config, where);
    const auto any = checkpoint.tensors.find("weights/lm_head.weight");
    const bool wide = any != checkpoint.tensors.end() && any->second.scalar_type() == at::kDouble;
    check_tensors(checkpoint, trained.state, trained.config, wide ? at::kDouble : at::kFloat, where);
  };
  const Checkpoint checkpoint = [&] {
    const auto tell = [&](const std::string& damaged) {
      if (on_note) on_note(damaged);
    };
    if (step < 0) return load_newest_checkpoint(checkpoints, tell, check).checkpoint;
    try {
      return load_checkpoint(checkpoints / fmt::format("step-{:08}", step), check);
    } catch (const Error& error) {
      fail(run.string(), "step {} cannot be exported, take another of {}: {}", step, fmt::join(steps, ", "),
           error.what());
    }
  }();
  trained.step = checkpoint.step;
  trained.weights = weights_of(checkpoint);
  return trained;
}

std::string tokenizer_of(const Trained& trained, const fs::path& run) {
  const fs::path own = run / "tokenizer/tokenizer.json";
  return fs::exists(own) ? io::read_file(own, kMaxTokenizerBytes) : trained.state.tokenizer;
}

// Of sums in FP64, one run after the other, so that no more than two are in memory.
Weights mean_weights(Trained& trained, const ExportOptions& options) {
  Weights weights = std::move(trained.weights);
  for (auto& [name, weight] : weights) weight = weight.to(at::kDouble);
  for (const fs::path& run : options.average) {
    const Trained other = load_trained(run, -1, options.on_note);
    const Weights& others = other.weights;
    if (tokenizer_of(other, run) != tokenizer_of(trained, options.run))
      fail(run.string(), "has another tokenizer than {}; only equal ones have a mean", options.run.string());
    const auto same = [](const auto& a, const auto& b) {
      return a.first == b.first && a.second.sizes() == b.second.sizes();
    };
    if (!std::equal(weights.begin(), weights.end(), others.begin(), others.end(), same))
      fail(run.string(), "is of a model of another shape than {}; only equal ones have a mean", options.run.string());
    if (other.state.config != trained.state.config)
      fail(run.string(), "has another config than {}; only equal ones have a mean", options.run.string());
    for (auto& [name, weight] : weights) weight.add_(others.at(name));
  }
  const auto count = static_cast<double>(options.average.size() + 1);
  for (auto& [name, weight] : weights) weight = weight.div_(count).to(at::kFloat);
  return weights;
}

void write_beside(const Trained& trained, const fs::path& run, const fs::path& out, const Note& on_note) {
  fs::path tokenizer = run / "tokenizer";
  if (!fs::is_directory(tokenizer)) tokenizer = trained.state.tokenizer;  // of a run that keeps no copy
  if (fs::exists(tokenizer))
    copy_tokenizer(tokenizer, out);
  else if (on_note)
    on_note(fmt::format("{} is not there; put the tokenizer beside the model", tokenizer.string()));
  if (trained.config.vision) {  // what came with the tokenizer may be of a model with other tiles
    fs::remove(out / "processor_config.json");
    const Json standard = media::image_processor_json({.tile_size = trained.config.vision->image_size});
    const Json& own = trained.state.image_processor;
    io::write_file(out / "preprocessor_config.json", (own.is_null() ? standard : own).dump(2) + "\n");
  }
  if (const Json& changes = trained.state.generation; changes.is_object()) {
    Json generation = read_json_file(out / "generation_config.json");
    generation.update(changes);
    io::write_file(out / "generation_config.json", generation.dump(2) + "\n");
  }
}

}  // namespace

int64_t export_run(const ExportOptions& options, const fs::path& out) {
  Trained trained = load_trained(options.run, options.step, options.on_note);
  if (!options.average.empty()) trained.weights = mean_weights(trained, options);
  const auto source = checkpoint::tensors_model(trained.config, std::move(trained.weights));
  checkpoint::save_hf(out, trained.config, options.dtype,
                      [&](const arch::ParamRow& row) { return source->load(row, options.dtype); });
  write_beside(trained, options.run, out, options.on_note);
  return trained.step;
}

}  // namespace puna::train
