#include "train/batches.h"

#include <fmt/format.h>

#include "base/error.h"
#include "io/image.h"

namespace puna::train {
namespace {

at::Tensor pixels_of(const data::ImageView& image, const media::ImageProcessorConfig& config,
                     const std::string& document) {
  const media::TiledImage tiled = media::process_image(io::decode_image(image.encoded, "image of " + document), config);
  if (tiled.rows != image.tiles.rows || tiled.columns != image.tiles.columns)
    fail("image of " + document, "has {}x{} tiles, its tokens were laid out for {}x{}; build the dataset again",
         tiled.rows, tiled.columns, image.tiles.rows, image.tiles.columns);
  return tiled.pixels;
}

// A micro-batch while it grows.
struct Builder {
  std::vector<int64_t> tokens, begin = {0}, target_rows, targets;
  std::vector<int32_t> source, position;
  std::vector<at::Tensor> pixels;

  void add(const data::Sample& sample, const media::ImageProcessorConfig& images, const std::string& document) {
    const auto row = static_cast<int64_t>(tokens.size());
    const size_t length = sample.tokens.size();
    tokens.insert(tokens.end(), sample.tokens.begin(), sample.tokens.end());
    for (size_t t = 0; t + 1 < length; ++t) {
      if (sample.loss[t + 1] == 0) continue;
      target_rows.push_back(row + static_cast<int64_t>(t));
      targets.push_back(sample.tokens[t + 1]);
      source.push_back(static_cast<int32_t>(sample.source));
      position.push_back(static_cast<int32_t>(t));
    }
    begin.push_back(static_cast<int64_t>(tokens.size()));
    for (const data::ImageView& image : sample.images) pixels.push_back(pixels_of(image, images, document));
  }

  MicroBatch finish() {
    MicroBatch micro;
    micro.tokens = at::tensor(tokens, at::kLong);
    micro.sequence_begin = std::move(begin);
    micro.target_rows = at::tensor(target_rows, at::kLong);
    micro.targets = at::tensor(targets, at::kLong);
    if (!pixels.empty()) micro.pixels = at::cat(pixels);
    micro.target_source = std::move(source);
    micro.target_position = std::move(position);
    *this = Builder();
    return micro;
  }
};

}  // namespace

StepBatch make_step_batch(const data::Mixture& mixture, const BatchConfig& batch,
                          const media::ImageProcessorConfig& images, uint64_t first_sample) {
  const int64_t micro_limit = batch.micro_tokens > 0 ? batch.micro_tokens : batch.tokens;
  StepBatch step;
  Builder builder;
  for (uint64_t n = first_sample;; ++n) {
    data::Sample sample;
    try {
      sample = mixture.at(n);
    } catch (const data::OutOfData&) {  // this step is whole without it, the next one will say so
      if (step.num_tokens == 0) throw;
      step.next_sample = n;
      break;
    }
    const auto length = static_cast<int64_t>(sample.tokens.size());
    if (step.num_tokens + length > batch.tokens && step.num_tokens > 0) {
      step.next_sample = n;
      break;
    }
    const auto held = static_cast<int64_t>(builder.tokens.size());
    if (held > 0 && held + length > micro_limit) step.micro.push_back(builder.finish());
    step.documents.push_back(fmt::format("{}/{}", mixture.sources()[sample.source].name, sample.document));
    builder.add(sample, images, step.documents.back());
    step.num_tokens += length;
    step.num_images += static_cast<int64_t>(sample.images.size());
    for (const data::ImageView& image : sample.images) step.num_tiles += image.tiles.num_tiles();
  }
  step.micro.push_back(builder.finish());
  for (const MicroBatch& micro : step.micro) step.num_targets += micro.targets.size(0);
  return step;
}

BatchLoader::BatchLoader(std::shared_ptr<const data::Mixture> mixture, const BatchConfig& batch,
                         const media::ImageProcessorConfig& images, uint64_t first_sample)
    : mixture_(std::move(mixture)), batch_(batch), images_(images) {
  prefetch(first_sample);
}

BatchLoader::~BatchLoader() {
  if (pending_.valid()) pending_.wait();
}

void BatchLoader::prefetch(uint64_t first_sample) {
  pending_ = std::async(std::launch::async,
                        [this, first_sample] { return make_step_batch(*mixture_, batch_, images_, first_sample); });
}

StepBatch BatchLoader::next(bool prefetch_next) {
  PUNA_CHECK(pending_.valid(), "no batch was asked for");
  StepBatch batch = pending_.get();
  if (prefetch_next) prefetch(batch.next_sample);
  return batch;
}

}  // namespace puna::train
