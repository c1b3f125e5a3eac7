// A tokenizer trained on what a recipe's sources say. Internal to src/train.
#pragma once

#include <atomic>
#include <filesystem>

#include "train/recipe.h"

namespace puna::train {

/// Trains on the sources' text and writes to `dir`; leaves what an equal recipe wrote before, and any when the run has
/// `begun`: its data and weights belong to that one. Throws Interrupted once `interrupt` is set.
void train_tokenizer(const Recipe& recipe, const std::filesystem::path& dir, bool begun,
                     const std::atomic<bool>* interrupt = nullptr);

}  // namespace puna::train
