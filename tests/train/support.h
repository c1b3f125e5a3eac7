// Small models and made-up batches for the tests of src/train.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "arch/config.h"
#include "data/mixture.h"
#include "data/record.h"
#include "media/image_processor.h"
#include "train/batches.h"
#include "train/learner.h"
#include "train/recipe.h"

namespace puna::test {

/// Width 32, four layers of which the last has no rope and the others chunks of 5, experts in layers 0, 1 and 3; the
/// vocabulary of data_tokenizer(); with `vision`, tiles of 56 pixels and 4 tokens.
arch::Llama4Config train_config(bool vision = false);
media::ImageProcessorConfig train_images();

/// Weights by Puna's name, the same for the same seed.
std::map<std::string, at::Tensor> random_masters(const arch::Llama4Config& config, at::ScalarType dtype,
                                                 uint64_t seed = 1);
std::map<std::string, at::Tensor> copies(const std::map<std::string, at::Tensor>& tensors);

/// A stage with balancing and weight decay off unless a test sets them.
train::StageConfig plain_stage();

/// A learner of train_config() whose stage has begun.
std::unique_ptr<train::Learner> make_learner(const train::StageConfig& stage, at::ScalarType dtype = at::kDouble,
                                             bool recompute = false, bool vision = false,
                                             std::unique_ptr<parallel::Comm> comm = nullptr);

/// A step of documents of the given lengths, random tokens, each micro-batch a list of lengths.
train::StepBatch random_batch(const std::vector<std::vector<int64_t>>& micro_lengths, uint64_t seed = 7);
/// The same tokens in other micro-batches: `parts[i]` documents in each.
train::StepBatch rearranged(const train::StepBatch& batch, const std::vector<int64_t>& parts);

/// max |a - b| over all tensors; the names must be equal. NaN gives NaN.
double greatest_difference(const std::map<std::string, at::Tensor>& a, const std::map<std::string, at::Tensor>& b);

/// A dataset at `out`, encoded for train_config(true).
std::shared_ptr<const data::Dataset> records_dataset(const std::filesystem::path& out,
                                                     std::vector<data::Record> records);
/// The same of texts.
std::shared_ptr<const data::Dataset> text_dataset(const std::filesystem::path& out,
                                                  const std::vector<std::string>& texts);

}  // namespace puna::test
