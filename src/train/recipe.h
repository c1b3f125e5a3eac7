// src/train: the trainer: recipes, sampling of batches, the step, optimiser and balance, checkpoints, metrics.
// The model is src/model, the same that serves; this folder adds what changes its weights.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "arch/config.h"
#include "base/json.h"

namespace puna::train {

/// Tokens of a step. Documents are laid end to end, never cut but at sequence_length.
struct BatchConfig {
  int64_t sequence_length = 256;  // longest piece of a document
  int64_t tokens = 8192;          // of an optimizer step, at most
  int64_t micro_tokens = 0;       // of one forward and backward, at most; 0: all at once
};

struct OptimizerConfig {
  double vision_rate = 1;       // times the learning rate, for the vision model and the projector
  double learning_rate = 1e-3;  // peak
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  double weight_decay = 0.1;  // decoupled; not on norms and biases
  double clip_norm = 1.0;     // of all gradients together; 0: no clipping
  bool reset = false;         // forget the moments at the start of the stage
};

struct ScheduleConfig {
  std::string kind = "cosine";  // constant, linear, cosine, wsd (warmup, stable, decay)
  int64_t warmup_steps = 0;
  int64_t decay_steps = 0;      // wsd only: the last steps of the stage
  double final_fraction = 0.1;  // of the peak, at the end
};

struct BalanceConfig {
  double bias_rate = 0;  // added to or taken from each expert's selection bias per step; 0: no bias
  double load_balance_weight = 0;
  double router_z_weight = 0;
  double dead_fraction = 0.02;  // an expert under this share of an even load counts as dead
  int64_t dead_steps = 50;      // for so many steps: a warning
};

struct CheckpointConfig {
  int64_t every = 500;  // steps; 0: only at the end
  int keep_last = 2;
  int64_t keep_every = 0;
};

struct LogConfig {
  int64_t details_every = 10;  // steps between lines with expert loads and losses by source and position
  double outlier_z = 6;        // loss or gradient norm that many deviations above the last 128 steps is flagged
};

/// One source of samples: exactly one of files, generate and dataset.
struct SourceConfig {
  std::string name;
  std::vector<std::string> files;  // texts, JSONL and directories of them; relative to the recipe
  std::string generate;            // a generator of src/synth
  std::string dataset;             // a directory written by `puna data build`
  int64_t documents = 0;           // generate: how many
  uint64_t seed = 0;               // generate
  int64_t length = 0;              // generate: rough tokens of a document
  std::string file;                // generate: what the generator reads
  double weight = 1;               // share of tokens
  double max_epochs = 0;           // 0: no limit
  bool validation = false;         // only measured, never trained on; a generator gives its held-out split
};

struct ValidationConfig {
  int64_t every = 0;       // steps between measurements on the validation sources; 0: none
  int64_t tokens = 16384;  // of each source, at most: always its first
};

/// What a run does for `steps` steps; a recipe without [[stage]] has one.
struct StageConfig {
  std::string name = "train";
  int64_t steps = 0;
  BatchConfig batch;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  BalanceConfig balance;
  std::vector<std::string> freeze;  // text, vision, router, embedding
  Json weights;                     // source -> share; sources that are absent are not used. Null: the sources' own
  Json model;                       // keys of Hugging Face's text config that change no shape: rope, context, chunks
};

struct ModelConfig {
  std::string from;                   // a checkpoint to start from, any format; "": random weights
  std::string tokenizer;              // file or directory; "": beside `from`, or trained (vocab_size)
  int64_t vocab_size = 0;             // train a tokenizer of so many entries on the sources; 0: none
  bool single_digits = false;         // of a trained tokenizer: an ASCII digit joins nothing
  double embedding_deviation = 0.02;  // of random weights
  int64_t max_tiles = 0;              // a picture is cut into, beside the whole; 0: as `from`, else 16
  Json config;      // Hugging Face config.json as a table; vocabulary and token ids follow the tokenizer
  Json generation;  // keys of the exported generation_config.json: do_sample, temperature, top_p, top_k
};

struct Recipe {
  std::filesystem::path path;  // of the file; "" when made in memory
  std::string out;             // run directory; relative to where the program runs
  uint64_t seed = 0;
  int threads = 0;                    // 0: all physical cores
  std::string precision = "float32";  // float32, float64, bfloat16 (with FP32 master weights)
  bool recompute = false;             // blocks are computed again in backward, to save memory
  bool deterministic = true;
  ModelConfig model;
  CheckpointConfig checkpoint;
  LogConfig log;
  ValidationConfig validation;
  std::vector<SourceConfig> sources;
  std::vector<StageConfig> stages;  // at least one

  int64_t total_steps() const;
};

/// Reads a TOML recipe and applies `overrides` ("optimizer.learning_rate=3e-4", "stage.extend.steps=100"). Throws Error
/// for unknown keys (naming the nearest), wrong types and values that make no sense.
Recipe read_recipe(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});
/// The same from TOML text; `where` names it in errors, relative paths start at `base`.
Recipe parse_recipe(std::string_view toml, std::string_view where, const std::filesystem::path& base,
                    const std::vector<std::string>& overrides = {});

/// Everything that decides the bytes of a run's weights and metrics.jsonl (not `out`, `threads` and checkpointing).
Json recipe_to_json(const Recipe& recipe);

/// Keys with defaults and help, for people.
std::string describe_recipe_keys();

}  // namespace puna::train
