#include "train/dry_run.h"

#include <malloc.h>
#include <stdlib.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <numeric>

#include "arch/counts.h"
#include "arch/layer_plan.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "checkpoint/tensor_models.h"
#include "train/check_settings.h"
#include "train/flops.h"
#include "train/learner.h"
#include "train/memory_need.h"
#include "train/prepare.h"
#include "train/schedule.h"

namespace puna::train {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int64_t kProbeRecords = 400;  // of every source
constexpr int kCountedSteps = 24;
constexpr int kWarmSteps = 2, kFewestTimed = 4, kMostTimed = 24;
// No further step is timed after so many seconds. Batches differ, and so does the speed of a shared machine.
constexpr double kTimedSeconds = 6;

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (fs::temp_directory_path() / "puna-dry-run-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr)
      fail(name, "cannot be made: {}; free some space, or set TMPDIR", std::generic_category().message(errno));
    path_ = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// The first `layers` layers of a model: its plan repeats, so that they stand for the others.
arch::Llama4Config shallow(const arch::Llama4Config& config, int64_t layers) {
  arch::Llama4Config cut = config;
  arch::TextConfig& t = cut.text;
  t.num_hidden_layers = layers;
  t.uses_rope.resize(layers);
  if (!t.chunked_layers.empty()) t.chunked_layers.resize(layers);
  std::erase_if(t.moe_layers, [&](int64_t layer) { return layer >= layers; });
  return cut;
}

struct Measured {
  double seconds = 0;          // of a step, mean
  double forward_seconds = 0;  // of a token that is only measured
  double activation_bytes = 0;
  double program_bytes = 0;  // beside weights, gradients and moments
};

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// The first steps, without their arithmetic.
void count_steps(const arch::Llama4Config& config, const Recipe& recipe, size_t stage, const Prepared& prepared,
                 const std::atomic<bool>* interrupt, DryRun::Stage& out) {
  const auto mixture = stage_mixture(recipe, stage, prepared);
  uint64_t sample = 0;
  const int64_t steps = std::min<int64_t>(kCountedSteps, recipe.stages[stage].steps);
  for (int64_t i = 0; i < steps; ++i) {
    stop_if_interrupted(interrupt);
    const StepBatch batch = make_step_batch(*mixture, recipe.stages[stage].batch, prepared.image_processor, sample);
    sample = batch.next_sample;
    out.tokens += static_cast<double>(batch.num_tokens) / static_cast<double>(steps);
    out.flops += step_flops(config, batch) / static_cast<double>(steps);
  }
}

Measured measure(const arch::Llama4Config& config, const Recipe& recipe, size_t stage, const Prepared& prepared) {
  const at::ScalarType wide = recipe.precision == "float64" ? at::kDouble : at::kFloat;
  const at::ScalarType compute = recipe.precision == "bfloat16" ? at::kBFloat16 : wide;
  const auto source = checkpoint::random_model(config, recipe.seed);
  std::map<std::string, at::Tensor> masters;
  for (const arch::ParamRow& row : source->rows()) masters[row.name] = source->load(row, wide);
  Learner learner(std::move(masters), compute, parallel::self_comm());
  const StageConfig& what = recipe.stages[stage];
  learner.begin_stage(config, what, recipe.recompute);
  const auto mixture = stage_mixture(recipe, stage, prepared);
  Recipe alone = recipe;
  alone.stages = {what};
  const MemoryNeed need = memory_need(alone, config);
  Measured measured;
  uint64_t sample = 0;
  int timed = 0;
  double seconds = 0;
  for (int i = 0; timed < kFewestTimed || (seconds < kTimedSeconds && timed < kMostTimed); ++i) {
    const StepBatch batch = make_step_batch(*mixture, what.batch, prepared.image_processor, sample);
    sample = batch.next_sample;
    malloc_trim(0);
    const int64_t before = resident_memory_bytes();
    reset_peak_resident_memory();
    auto start = Clock::now();
    learner.step(batch, what.optimizer.learning_rate * 1e-3, mixture->sources().size(), i + 1);
    if (i < kWarmSteps) continue;
    seconds += seconds_since(start);
    ++timed;
    measured.program_bytes = static_cast<double>(before - need.weights - need.gradients - need.moments);
    measured.activation_bytes =
        std::max(measured.activation_bytes, static_cast<double>(peak_resident_memory_bytes() - before));
    if (timed > 1 || recipe.validation.every == 0) continue;
    start = Clock::now();
    learner.evaluate(batch);
    measured.forward_seconds = seconds_since(start) / static_cast<double>(batch.num_tokens);
  }
  measured.seconds = seconds / timed;
  return measured;
}

// Layers after which the plan repeats.
int64_t period_of(const arch::TextConfig& text) {
  const auto plan = arch::layer_plan(text);
  const auto same = [](const arch::LayerPlan& a, const arch::LayerPlan& b) {
    return a.rope == b.rope && a.chunked == b.chunked && a.moe == b.moe;
  };
  const auto layers = static_cast<int64_t>(plan.size());
  for (int64_t period = 1; period < layers; ++period) {
    bool repeats = true;
    for (int64_t i = period; i < layers && repeats; ++i) repeats = same(plan[i], plan[i - period]);
    if (repeats) return period;
  }
  return layers;
}

Measured measure_stage(const arch::Llama4Config& config, const Recipe& recipe, size_t stage, const Prepared& prepared) {
  const int64_t layers = config.text.num_hidden_layers, period = period_of(config.text);
  if (layers <= std::max<int64_t>(8, 2 * period)) return measure(config, recipe, stage, prepared);
  const Measured one = measure(shallow(config, period), recipe, stage, prepared);
  const Measured two = measure(shallow(config, 2 * period), recipe, stage, prepared);
  const double more = static_cast<double>(layers - period) / static_cast<double>(period);
  const auto line = [&](double a, double b) { return a + (b - a) * more; };
  return {line(one.seconds, two.seconds), line(one.forward_seconds, two.forward_seconds),
          line(one.activation_bytes, two.activation_bytes), two.program_bytes};
}

void count(const arch::Llama4Config& config, const Recipe& recipe, DryRun& plan) {
  const arch::ParameterCounts counts = arch::count_parameters(config);
  plan.parameters = counts.total;
  plan.active_parameters = counts.active;
  const MemoryNeed need = memory_need(recipe, config);
  plan.program_bytes = resident_memory_bytes();
  plan.weight_bytes = need.weights;
  plan.gradient_bytes = need.gradients;
  plan.optimizer_bytes = need.moments;
  plan.activation_bytes = need.activations;
  plan.snapshot_bytes = need.snapshot;
  plan.available_bytes = available_memory_bytes();
  for (const StageConfig& stage : recipe.stages) plan.stages.push_back({.name = stage.name, .steps = stage.steps});
}

// Time and place of whole datasets, from the part of each that was built.
void count_data(const Recipe& recipe, const Prepared& prepared, DryRun& plan) {
  for (size_t i = 0; i < recipe.sources.size(); ++i) {
    const Built& built = prepared.built[i];
    if (built.fraction <= 0) continue;
    plan.preparation_seconds += built.seconds / built.fraction;
    plan.data_bytes += static_cast<int64_t>(static_cast<double>(built.bytes) * (1 / built.fraction - 1));
  }
}

// Tokens of one measurement on all validation sources.
double validation_tokens(const Recipe& recipe, const Prepared& prepared, const StageConfig& stage) {
  double tokens = 0;
  for (size_t i = 0; i < recipe.sources.size(); ++i) {
    if (!recipe.sources[i].validation) continue;
    const double all = static_cast<double>(prepared.datasets[i]->num_tokens()) / prepared.built[i].fraction;
    tokens += std::min(all, static_cast<double>(std::max(recipe.validation.tokens, stage.batch.sequence_length)));
  }
  return tokens;
}

void measure_stages(const Recipe& recipe, const Prepared& prepared, const std::atomic<bool>* interrupt, DryRun& plan) {
  plan.program_bytes = plan.activation_bytes = 0;
  int64_t before = 0;  // steps of earlier stages
  for (size_t i = 0; i < recipe.stages.size(); ++i) {
    stop_if_interrupted(interrupt);
    const StageConfig& stage = recipe.stages[i];
    const Measured measured =
        measure_stage(stage_config(prepared.config, stage, recipe.path.string()), recipe, i, prepared);
    plan.program_bytes = std::max(plan.program_bytes, static_cast<int64_t>(measured.program_bytes));
    plan.activation_bytes = std::max(plan.activation_bytes, static_cast<int64_t>(measured.activation_bytes));
    plan.stages[i].seconds = measured.seconds;
    const int64_t after = before + stage.steps, every = recipe.validation.every;
    if (every > 0) {
      const bool last = i + 1 == recipe.stages.size() && after % every != 0;
      plan.stages[i].validation_seconds = static_cast<double>(after / every - before / every + (last ? 1 : 0)) *
                                          validation_tokens(recipe, prepared, stage) * measured.forward_seconds;
    }
    before = after;
  }
}

std::string duration(double seconds) {
  if (seconds >= 5400) return fmt::format("{:.1f} h", seconds / 3600);
  return seconds >= 90 ? fmt::format("{:.1f} min", seconds / 60) : fmt::format("{:.1f} s", seconds);
}

std::string memory_line(const char* name, int64_t bytes) {
  return fmt::format("  {:<18} {:>12}\n", name, format_bytes(bytes));
}

}  // namespace

double DryRun::steps_seconds() const {
  return std::accumulate(stages.begin(), stages.end(), 0.0, [](double sum, const Stage& stage) {
    return sum + static_cast<double>(stage.steps) * stage.seconds;
  });
}

double DryRun::validation_seconds() const {
  return std::accumulate(stages.begin(), stages.end(), 0.0,
                         [](double sum, const Stage& stage) { return sum + stage.validation_seconds; });
}

std::string DryRun::counted_text() const {
  std::string out = fmt::format("parameters {} ({} active)\nmemory, counted\n", parameters, active_parameters);
  for (const auto& [name, bytes] :
       {std::pair{"weights", weight_bytes}, std::pair{"gradients", gradient_bytes},
        std::pair{"moments", optimizer_bytes}, std::pair{"checkpoint copy", snapshot_bytes}})
    out += memory_line(name, bytes);
  return out;
}

std::string DryRun::measured_text() const {
  std::string out = "memory, measured\n";
  for (const auto& [name, bytes] : {std::pair{"program", program_bytes},
                                    std::pair{refused ? "activations, least" : "activations", activation_bytes},
                                    std::pair{"data, mapped", data_bytes}, std::pair{"all", total_bytes()}})
    out += memory_line(name, bytes);
  out += memory_line("free", available_bytes);
  out += fmt::format("\n{:<14} {:>8} {:>12} {:>14} {:>10} {:>10}\n", "stage", "steps", "tokens/step", "GFLOP/step",
                     "s/step", "time");
  const auto known = [](double value, const std::string& text) { return value > 0 ? text : std::string("-"); };
  for (const Stage& stage : stages)
    out += fmt::format("{:<14} {:>8} {:>12} {:>14} {:>10} {:>10}\n", stage.name, stage.steps,
                       known(stage.tokens, fmt::format("{:.0f}", stage.tokens)),
                       known(stage.flops, fmt::format("{:.1f}", stage.flops / 1e9)),
                       known(stage.seconds, fmt::format("{:.3f}", stage.seconds)),
                       known(stage.seconds, duration(stage.seconds * static_cast<double>(stage.steps))));
  if (refused) return out;
  out += fmt::format("{:<61} {:>10}\n", "tokenizer and datasets", duration(preparation_seconds));
  if (validation_seconds() > 0) out += fmt::format("{:<61} {:>10}\n", "validation", duration(validation_seconds()));
  return out + fmt::format("{:<61} {:>10}\n", "all this, on this machine as it is now", duration(total_seconds())) +
         "Not in the time: loading the weights, checkpoints (written while training goes on), the exported model.\n";
}

Json DryRun::json() const {
  Json json = {{"parameters", parameters},
               {"active_parameters", active_parameters},
               {"memory_bytes",
                {{"program", program_bytes},
                 {"weights", weight_bytes},
                 {"gradients", gradient_bytes},
                 {"moments", optimizer_bytes},
                 {"activations", activation_bytes},
                 {"checkpoint_copy", snapshot_bytes},
                 {"data", data_bytes},
                 {"total", total_bytes()},
                 {"available", available_bytes}}},
               {"seconds",
                {{"preparation", preparation_seconds},
                 {"steps", steps_seconds()},
                 {"validation", validation_seconds()},
                 {"total", total_seconds()}}},
               {"refused", refused != nullptr},
               {"warnings", warnings},
               {"stages", Json::array()}};
  for (const Stage& stage : stages)
    json["stages"].push_back({{"name", stage.name},
                              {"steps", stage.steps},
                              {"tokens_per_step", stage.tokens},
                              {"flops_per_step", stage.flops},
                              {"seconds_per_step", stage.seconds}});
  return json;
}

DryRun dry_run(const Recipe& asked, const std::function<void(const DryRun&)>& on_counted,
               const std::atomic<bool>* interrupt, bool check) {
  DryRun plan;
  Recipe recipe = asked;
  for (SourceConfig& source : recipe.sources) source.max_epochs = 0;  // the few records of the probe are soon used up
  const TemporaryDirectory directory;
  const auto start = Clock::now();
  Prepared prepared = prepare_model(recipe, directory.path(), interrupt);
  plan.preparation_seconds = seconds_since(start);
  count(prepared.config, recipe, plan);
  try {
    plan.warnings = check_settings(recipe, prepared.config);
  } catch (const Error&) {
    plan.refused = std::current_exception();
  }
  if (on_counted) on_counted(plan);
  if (plan.refused) return plan;
  try {
    prepare_data(recipe, directory.path(), prepared, interrupt, kProbeRecords);
    count_data(recipe, prepared, plan);
    for (size_t i = 0; i < recipe.stages.size(); ++i)
      count_steps(stage_config(prepared.config, recipe.stages[i], recipe.path.string()), recipe, i, prepared, interrupt,
                  plan.stages[i]);
    if (check) check_memory(memory_need(recipe, prepared.config), plan.available_bytes, recipe.path.string());
    measure_stages(recipe, prepared, interrupt, plan);
  } catch (const Error&) {
    plan.refused = std::current_exception();
  }
  return plan;
}

}  // namespace puna::train
