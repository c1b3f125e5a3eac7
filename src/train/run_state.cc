#include "train/run_state.h"

#include <set>

#include "arch/layer_plan.h"
#include "arch/parameters.h"
#include "base/error.h"
#include "io/text.h"
#include "train/json_fields.h"

namespace puna::train {
namespace {

using internal::Fields;

constexpr int64_t kMaxSample = int64_t{1} << 62;
constexpr int64_t kMaxLayers = 1 << 20;

OutlierDetector read_detector(const Fields& fields, const char* key, std::string_view where) {
  const std::vector<double> values = fields.numbers(key);
  if (values.size() > OutlierDetector::kWindow)
    fail(where, "'{}' of the state has {} entries, {} at most are kept", key, values.size(), OutlierDetector::kWindow);
  OutlierDetector detector;
  detector.restore(values);
  return detector;
}

DeadExperts read_dead_experts(const Json& layers, std::string_view where) {
  for (const Json& layer : layers) {
    const Fields fields(layer, "an entry of 'dead_experts'", where);
    if (fields.count("layer") >= kMaxLayers) fail(where, "'dead_experts' names layer {}", fields.count("layer"));
    fields.counts("steps");
    fields.counts("told");
  }
  DeadExperts experts;
  experts.restore(layers);
  return experts;
}

void check_tensor(const at::Tensor& tensor, const std::string& name, at::IntArrayRef shape, at::ScalarType dtype,
                  std::string_view where) {
  if (tensor.sizes() != shape || tensor.scalar_type() != dtype)
    fail(where, "the tensor '{}' is {} {}, the model has {} {}; is this a checkpoint of another run?",
         io::printable(name), c10::toString(tensor.scalar_type()), io::shape_text(tensor.sizes()), c10::toString(dtype),
         io::shape_text(shape));
}

}  // namespace

Json to_json(const RunState& state) {
  return {{"stage", state.stage},
          {"stage_step", state.stage_step},
          {"next_sample", state.next_sample},
          {"tokens", state.tokens},
          {"metrics_bytes", state.metrics_bytes},
          {"losses", state.losses.state()},
          {"norms", state.norms.state()},
          {"dead_experts", state.dead_experts.state()},
          {"adam_steps", state.adam_steps},
          {"data", state.data},
          {"recipe", state.recipe},
          {"threads", state.threads},
          {"config", state.config},
          {"tokenizer", state.tokenizer},
          {"image_processor", state.image_processor},
          {"generation", state.generation}};
}

RunState read_state(const Json& json, std::string_view where) {
  const Fields fields(json, "the state", where);
  RunState state;
  state.stage = fields.count("stage");
  state.stage_step = fields.count("stage_step");
  state.next_sample = fields.count("next_sample");
  state.tokens = fields.count("tokens");
  state.metrics_bytes = fields.count("metrics_bytes");
  state.losses = read_detector(fields, "losses", where);
  state.norms = read_detector(fields, "norms", where);
  state.dead_experts = read_dead_experts(fields.array("dead_experts"), where);
  const Fields steps(fields.object("adam_steps"), "'adam_steps'", where);
  for (const auto& [name, value] : fields.at("adam_steps").items()) state.adam_steps[name] = steps.count(name.c_str());
  const Fields hashes(fields.object("data"), "'data'", where);
  for (const auto& [name, value] : fields.at("data").items()) state.data[name] = hashes.text(name.c_str());
  if (json.contains("recipe")) state.recipe = fields.text("recipe");
  if (json.contains("threads")) state.threads = fields.count("threads");
  state.config = fields.object("config");
  state.tokenizer = fields.text("tokenizer");
  if (json.contains("image_processor") && !json["image_processor"].is_null())
    state.image_processor = fields.object("image_processor");
  if (json.contains("generation") && !json["generation"].is_null()) state.generation = fields.object("generation");
  return state;
}

void check_position(const RunState& state, int64_t step, const Recipe& recipe, std::string_view where) {
  const auto num_stages = static_cast<int64_t>(recipe.stages.size());
  if (state.stage > num_stages) fail(where, "is of stage {}, the recipe has {}", state.stage + 1, num_stages);
  int64_t before = 0;
  for (int64_t i = 0; i < state.stage; ++i) before += recipe.stages[static_cast<size_t>(i)].steps;
  const int64_t steps = state.stage < num_stages ? recipe.stages[static_cast<size_t>(state.stage)].steps : 0;
  if (state.stage_step > steps || before + state.stage_step != step)
    fail(where, "is of step {} and of step {} of stage {}, which contradict each other in this recipe", step,
         state.stage_step, state.stage + 1);
  if (state.next_sample > kMaxSample) fail(where, "goes on at sample {}, which is beyond 2^62", state.next_sample);
  std::set<std::string> names;
  for (const SourceConfig& source : recipe.sources) names.insert(source.name);
  for (const std::string& name : names)
    if (!state.data.contains(name)) fail(where, "knows no source '{}'; is this a checkpoint of another run?", name);
  for (const auto& [name, hash] : state.data)
    if (!names.contains(name))
      fail(where, "is of a run with a source '{}', which the recipe does not have", io::printable(name));
}

void store_learner(Learner& learner, Checkpoint& checkpoint, RunState& state) {
  for (const auto& [name, tensor] : learner.masters()) checkpoint.tensors["weights/" + name] = tensor;
  for (const auto& [name, parameter] : learner.optimizer().parameters()) {
    checkpoint.tensors["adam_m/" + name] = parameter.m;
    checkpoint.tensors["adam_v/" + name] = parameter.v;
    state.adam_steps[name] = parameter.steps;
  }
  for (const auto& [layer, bias] : learner.selection_bias()) checkpoint.tensors[fmt::format("bias/{}", layer)] = bias;
}

std::map<std::string, at::Tensor> weights_of(const Checkpoint& checkpoint) {
  constexpr std::string_view kPrefix = "weights/";
  std::map<std::string, at::Tensor> weights;
  for (const auto& [name, tensor] : checkpoint.tensors)
    if (name.starts_with(kPrefix)) weights[name.substr(kPrefix.size())] = tensor;
  return weights;
}

void restore_learner(const Checkpoint& checkpoint, const RunState& state, const arch::Llama4Config& config,
                     Learner& learner) {
  std::map<std::string, arch::ParamRow> rows;
  for (const arch::ParamRow& row : arch::parameter_table(config)) rows[row.name] = row;
  for (const auto& [name, steps] : state.adam_steps) {
    learner.optimizer().add(name, learner.masters().at(name), is_decayed(rows.at(name)));
    AdamW::Parameter& parameter = learner.optimizer().parameters().at(name);
    parameter.m.copy_(checkpoint.tensors.at("adam_m/" + name));
    parameter.v.copy_(checkpoint.tensors.at("adam_v/" + name));
    parameter.steps = steps;
  }
  for (const auto& [name, tensor] : checkpoint.tensors)
    if (name.starts_with("bias/")) learner.selection_bias()[std::stoi(name.substr(5))] = tensor;
}

std::string first_not_finite_weight(const Checkpoint& checkpoint) {
  for (const auto& [name, tensor] : checkpoint.tensors)
    if (name.starts_with("weights/") && !all_finite(tensor)) return name;
  return "";
}

void check_tensors(const Checkpoint& checkpoint, const RunState& state, const arch::Llama4Config& config,
                   at::ScalarType dtype, std::string_view where) {
  std::set<std::string> wanted;
  const auto want = [&](const std::string& name, at::IntArrayRef shape) {
    const auto found = checkpoint.tensors.find(name);
    if (found == checkpoint.tensors.end()) fail(where, "lacks the tensor '{}' of the model", io::printable(name));
    check_tensor(found->second, name, shape, dtype, where);
    wanted.insert(name);
  };
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const arch::ParamRow& row : arch::parameter_table(config)) {
    want("weights/" + row.name, row.shape);
    shapes[row.name] = row.shape;
  }
  for (const auto& [name, steps] : state.adam_steps) {
    if (!shapes.contains(name)) fail(where, "'adam_steps' names '{}', no weight of the model", io::printable(name));
    want("adam_m/" + name, shapes[name]);
    want("adam_v/" + name, shapes[name]);
  }
  for (const arch::LayerPlan& plan : arch::layer_plan(config.text)) {
    const auto bias = checkpoint.tensors.find(fmt::format("bias/{}", plan.index));
    if (!plan.moe || bias == checkpoint.tensors.end()) continue;
    check_tensor(bias->second, bias->first, {config.text.num_local_experts}, at::kFloat, where);
    wanted.insert(bias->first);
  }
  for (const auto& [name, tensor] : checkpoint.tensors)
    if (!wanted.contains(name))
      fail(where, "holds the tensor '{}', which is none of this model; is this a checkpoint of another run?",
           io::printable(name));
  if (const std::string bad = first_not_finite_weight(checkpoint); !bad.empty())
    fail(where, "the tensor '{}' has values that are not finite", io::printable(bad));
}

}  // namespace puna::train
