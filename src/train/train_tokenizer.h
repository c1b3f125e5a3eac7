// A tokenizer trained on what a recipe's sources say. Internal to src/train.
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>

#include "data/record.h"
#include "train/recipe.h"

namespace puna::train {

/// The records of a source that is not a dataset already.
std::unique_ptr<data::RecordSource> open_records(const SourceConfig& source);

/// Trains on the sources' text and writes to `dir`; leaves what an equal recipe wrote before, and any when the run has
/// `begun`: its data and weights belong to that one. Throws Interrupted once `interrupt` is set.
void train_tokenizer(const Recipe& recipe, const std::filesystem::path& dir, bool begun,
                     const std::atomic<bool>* interrupt = nullptr);

}  // namespace puna::train
