// What a run goes on from beside its tensors, as a checkpoint's state. Internal to src/train.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "arch/config.h"
#include "base/json.h"
#include "train/balance.h"
#include "train/checkpoint.h"
#include "train/learner.h"
#include "train/metrics.h"
#include "train/recipe.h"

namespace puna::train {

struct RunState {
  int64_t stage = 0, stage_step = 0;  // of the next step; a stage's end is (stage, its steps) or (stage + 1, 0)
  int64_t next_sample = 0;            // of the stage's stream
  int64_t tokens = 0;                 // so far
  int64_t metrics_bytes = 0;          // of metrics.jsonl
  OutlierDetector losses, norms;
  DeadExperts dead_experts;
  std::map<std::string, int64_t> adam_steps;  // updates of each parameter that has moments
  std::map<std::string, std::string> data;    // content hash of each source
  std::string recipe;                         // hash of the settings in recipe.json; "" of before it was stored
  int64_t threads = 0;                        // that the last step ran on; 0: of before it was stored
  Json config;                                // Hugging Face's, of the stage
  std::string tokenizer;                      // file or directory
  Json image_processor;                       // as preprocessor_config.json; null: no vision model
  Json generation;                            // what the exported generation_config.json says besides; null: nothing
};

Json to_json(const RunState& state);

/// Throws Error(`where`) for what to_json() does not write.
RunState read_state(const Json& state, std::string_view where);

/// Throws Error(`where`) unless the state is one that this recipe passes through after `step` steps.
void check_position(const RunState& state, int64_t step, const Recipe& recipe, std::string_view where);

/// Puts what a learner goes on from into a checkpoint and its state: weights, moments, selection biases.
void store_learner(Learner& learner, Checkpoint& checkpoint, RunState& state);
/// The weights of a checkpoint by Puna's name, as a learner takes them.
std::map<std::string, at::Tensor> weights_of(const Checkpoint& checkpoint);
/// The rest of it, into a learner of these weights that has not begun its stage.
void restore_learner(const Checkpoint& checkpoint, const RunState& state, const arch::Llama4Config& config,
                     Learner& learner);

/// The first weight ("weights/<parameter>") with a value that is not finite, by name; "" when all are.
std::string first_not_finite_weight(const Checkpoint& checkpoint);

/// Throws Error(`where`) unless the tensors are the weights of `config`, moments of those that state.adam_steps names,
/// all of `dtype`, selection biases of layers with experts, and no others, and the weights are finite.
void check_tensors(const Checkpoint& checkpoint, const RunState& state, const arch::Llama4Config& config,
                   at::ScalarType dtype, std::string_view where);

}  // namespace puna::train
