// From a recipe to what a run needs before its first step: tokenizer, config, datasets.
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <vector>

#include "arch/config.h"
#include "checkpoint/model_source.h"
#include "data/dataset.h"
#include "data/mixture.h"
#include "data/record.h"
#include "media/image_processor.h"
#include "text/tokenizer.h"
#include "train/recipe.h"

namespace puna::train {

/// The records of a source that is not a dataset already. Throws Error(`where`) that names the source.
std::unique_ptr<data::RecordSource> open_records(const SourceConfig& source, std::string_view where);

/// Of a dataset that was built from the first records of a source alone.
struct Built {
  double fraction = 1;  // of all its records, roughly
  double seconds = 0;
  int64_t bytes = 0;
};

struct Prepared {
  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::filesystem::path tokenizer_dir;  // of the run; beside an exported model's weights lies what is in it
  arch::Llama4Config config;            // of the first stage before its own changes
  media::ImageProcessorConfig image_processor;
  std::vector<std::shared_ptr<const data::Dataset>> datasets;  // one per source
  std::vector<Built> built;                                    // one per source; as it is made for one that was there
};

/// The tokenizer and the config alone: what --dry-run can know without data. Trains the tokenizer when the recipe says
/// so. Both, and all of `from` but its weights, are copied into the run directory and read from there once the run has
/// begun. Throws Interrupted once `interrupt` is set, as prepare_data() does; calling again goes on.
Prepared prepare_model(const Recipe& recipe, const std::filesystem::path& run_dir,
                       const std::atomic<bool>* interrupt = nullptr);

/// Builds, or opens, the dataset of every source in <run_dir>/data/<name>; of its first `max_records` when not 0. What
/// a run that has begun was built of is not looked at again: its datasets and its tokenizer are opened as they are.
void prepare_data(const Recipe& recipe, const std::filesystem::path& run_dir, Prepared& prepared,
                  const std::atomic<bool>* interrupt = nullptr, int64_t max_records = 0);

/// The stage's config: `base` with the stage's [model] keys. Throws Error for unknown keys and for those that change a
/// weight's shape. "ntk_factor" f multiplies rope_theta by f^(K / (K - 2)) (NTK-aware scaling).
arch::Llama4Config stage_config(const arch::Llama4Config& base, const StageConfig& stage, std::string_view where);

/// The first weights: those of `from`, else random ones of `config`.
std::unique_ptr<checkpoint::ModelSource> initial_weights(const Recipe& recipe, const arch::Llama4Config& config);

/// The stage's sources with their weights and, of all of them, the stream of samples.
std::shared_ptr<const data::Mixture> stage_mixture(const Recipe& recipe, size_t stage, const Prepared& prepared);

}  // namespace puna::train
