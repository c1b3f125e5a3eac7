#include "train/check_settings.h"

#include <algorithm>

#include "arch/layer_plan.h"
#include "arch/parameters.h"
#include "base/error.h"
#include "train/learner.h"
#include "train/prepare.h"

namespace puna::train {
namespace {

bool sets_balance(const BalanceConfig& balance) {
  const BalanceConfig none;
  return balance.bias_rate > 0 || balance.load_balance_weight > 0 || balance.router_z_weight > 0 ||
         balance.dead_fraction != none.dead_fraction || balance.dead_steps != none.dead_steps;
}

double weight_in(const StageConfig& stage, const SourceConfig& source) {
  return stage.weights.is_null() ? source.weight : stage.weights.value(source.name, 0.0);
}

void check_stage(const StageConfig& stage, const arch::Llama4Config& config, const std::vector<arch::ParamRow>& rows,
                 const Recipe& recipe, std::vector<std::string>& warnings) {
  const auto frozen = [&](const std::vector<std::string>& parts) {
    return std::ranges::count_if(rows, [&](const arch::ParamRow& row) { return is_frozen(row, parts); });
  };
  if (frozen(stage.freeze) == std::ssize(rows))
    fail(recipe.path.string(), "'stage.{}.freeze' leaves nothing of this model that learns; take a part out of it",
         stage.name);
  for (const std::string& part : stage.freeze)
    if (frozen({part}) == 0)
      warnings.push_back(fmt::format("stage.{}.freeze: the model has no '{}' to freeze", stage.name, part));
  const int64_t context = stage_config(config, stage, recipe.path.string()).text.max_position_embeddings;
  if (stage.batch.sequence_length > context)
    fail(recipe.path.string(),
         "stage '{}' has sequences of {} tokens, the model's max_position_embeddings is {}; set it in [stage.model]",
         stage.name, stage.batch.sequence_length, context);
  const ScheduleConfig& schedule = stage.schedule;
  if (schedule.kind == "wsd" && schedule.decay_steps == 0)
    fail(recipe.path.string(),
         "'stage.{}.schedule' is 'wsd' and never decays; say over how many steps at the end with decay_steps, or take "
         "'constant'",
         stage.name);
  for (const SourceConfig& source : recipe.sources)
    if (source.validation && !stage.weights.is_null() && weight_in(stage, source) > 0)
      warnings.push_back(fmt::format("stage.{}.weights.{} has no effect: a validation source is never trained on",
                                     stage.name, source.name));
}

void check_sources(const Recipe& recipe, std::vector<std::string>& warnings) {
  const bool measured = std::ranges::any_of(recipe.sources, &SourceConfig::validation);
  if (recipe.validation.every > 0 && !measured)
    warnings.emplace_back("validation.every has no effect: no source says validation = true");
  for (const SourceConfig& source : recipe.sources) {
    if (source.validation && recipe.validation.every == 0)
      warnings.push_back(fmt::format("source '{}' is never measured: set validation.every", source.name));
    const auto used = [&](const StageConfig& stage) { return weight_in(stage, source) > 0; };
    if (!source.validation && std::ranges::none_of(recipe.stages, used))
      warnings.push_back(fmt::format("source '{}' is trained on in no stage: its weight is 0 in all", source.name));
  }
}

}  // namespace

std::vector<std::string> check_settings(const Recipe& recipe, const arch::Llama4Config& config) {
  std::vector<std::string> warnings;
  check_sources(recipe, warnings);
  const auto rows = arch::parameter_table(config);
  for (const StageConfig& stage : recipe.stages) check_stage(stage, config, rows, recipe, warnings);
  const auto any_stage = [&](auto sets) { return std::ranges::any_of(recipe.stages, sets); };
  if (!config.vision && any_stage([](const StageConfig& stage) { return stage.optimizer.vision_rate != 1; }))
    warnings.emplace_back("optimizer.vision_rate has no effect: the model has no vision");
  const auto plan = arch::layer_plan(config.text);
  if (std::ranges::none_of(plan, &arch::LayerPlan::moe) &&
      any_stage([](const StageConfig& stage) { return sets_balance(stage.balance); }))
    warnings.emplace_back("[balance] has no effect: the model has no experts");
  return warnings;
}

}  // namespace puna::train
