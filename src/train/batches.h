// The tokens of each step: samples laid end to end, images decoded, prepared one step ahead.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "data/mixture.h"
#include "media/image_processor.h"
#include "train/recipe.h"

namespace puna::train {

/// One forward and backward.
struct MicroBatch {
  at::Tensor tokens;                     // [T] int64
  std::vector<int64_t> sequence_begin;   // [samples + 1]
  at::Tensor target_rows;                // [R] int64: rows with a target
  at::Tensor targets;                    // [R] int64
  at::Tensor pixels;                     // [tiles, 3, S, S] bf16; undefined without images
  std::vector<int32_t> target_source;    // [R] index of the source
  std::vector<int32_t> target_position;  // [R] of the predicting token in its sequence
};

struct StepBatch {
  std::vector<MicroBatch> micro;
  uint64_t next_sample = 0;  // where the following step begins
  int64_t num_tokens = 0, num_targets = 0, num_images = 0, num_tiles = 0;
  std::vector<std::string> documents;  // "source/document" of every sample, in order
};

/// Samples from `first_sample` on until the next would exceed batch.tokens. A pure function of its arguments. Throws
/// OutOfData when not even the first of them is there, and Error for a damaged shard.
StepBatch make_step_batch(const data::Mixture& mixture, const BatchConfig& batch,
                          const media::ImageProcessorConfig& images, uint64_t first_sample);

/// make_step_batch for consecutive steps, in a background thread, one step ahead.
class BatchLoader {
 public:
  BatchLoader(std::shared_ptr<const data::Mixture> mixture, const BatchConfig& batch,
              const media::ImageProcessorConfig& images, uint64_t first_sample);
  ~BatchLoader();

  /// Throws what making the batch threw. `prefetch_next` false: the last one of a stage.
  StepBatch next(bool prefetch_next);

 private:
  void prefetch(uint64_t first_sample);

  std::shared_ptr<const data::Mixture> mixture_;
  BatchConfig batch_;
  media::ImageProcessorConfig images_;
  std::future<StepBatch> pending_;
};

}  // namespace puna::train
