#include "tests/train/support.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "checkpoint/tensor_models.h"
#include "tests/data/support.h"
#include "tests/model/support.h"

namespace puna::test {

arch::Llama4Config train_config(bool vision) {
  arch::Llama4Config config = small_config();
  const auto tokenizer = data_tokenizer();
  config.text.vocab_size = tokenizer->vocab_size();
  config.bos_token_id = tokenizer->special("<|begin_of_text|>").value();
  config.eos_token_ids = {tokenizer->special("<|end_of_text|>").value()};
  config.image_token_id = vision ? tokenizer->special("<|patch|>").value() : -1;
  config.boi_token_id = vision ? tokenizer->special("<|image_start|>").value() : -1;
  config.eoi_token_id = vision ? tokenizer->special("<|image_end|>").value() : -1;
  config.pad_token_id = -1;
  if (!vision) config.vision.reset();
  return config;
}

media::ImageProcessorConfig train_images() {
  media::ImageProcessorConfig images;
  images.tile_size = 56;
  images.max_tiles = 6;
  return images;
}

std::map<std::string, at::Tensor> random_masters(const arch::Llama4Config& config, at::ScalarType dtype,
                                                 uint64_t seed) {
  std::map<std::string, at::Tensor> masters;
  const auto source = checkpoint::random_model(config, seed, 0.5);
  for (const arch::ParamRow& row : source->rows()) masters[row.name] = source->load(row, dtype).clone();
  return masters;
}

std::map<std::string, at::Tensor> copies(const std::map<std::string, at::Tensor>& tensors) {
  std::map<std::string, at::Tensor> result;
  for (const auto& [name, tensor] : tensors) result[name] = tensor.detach().clone();
  return result;
}

train::StageConfig plain_stage() {
  train::StageConfig stage;
  stage.steps = 10;
  stage.optimizer.weight_decay = 0;
  stage.optimizer.clip_norm = 0;
  return stage;
}

std::unique_ptr<train::Learner> make_learner(const train::StageConfig& stage, at::ScalarType dtype, bool recompute,
                                             bool vision, std::unique_ptr<parallel::Comm> comm) {
  const arch::Llama4Config config = train_config(vision);
  if (!comm) comm = parallel::self_comm();
  const at::ScalarType wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  auto learner = std::make_unique<train::Learner>(random_masters(config, wide), dtype, std::move(comm));
  learner->begin_stage(config, stage, recompute);
  return learner;
}

namespace {

void add_document(train::MicroBatch& micro, const at::Tensor& tokens) {
  const int64_t row = micro.tokens.defined() ? micro.tokens.size(0) : 0, length = tokens.size(0);
  if (!micro.tokens.defined()) {
    micro.tokens = micro.target_rows = micro.targets = at::empty({0}, at::kLong);
    micro.sequence_begin = {0};
  }
  micro.tokens = at::cat({micro.tokens, tokens});
  micro.sequence_begin.push_back(row + length);
  micro.target_rows = at::cat({micro.target_rows, at::arange(row, row + length - 1, at::kLong)});
  micro.targets = at::cat({micro.targets, tokens.narrow(0, 1, length - 1)});
  for (int64_t t = 0; t + 1 < length; ++t) {
    micro.target_source.push_back(0);
    micro.target_position.push_back(static_cast<int32_t>(t));
  }
}

void finish(train::StepBatch& batch) {
  batch.num_tokens = batch.num_targets = 0;
  for (const train::MicroBatch& micro : batch.micro) {
    batch.num_tokens += micro.tokens.size(0);
    batch.num_targets += micro.targets.size(0);
  }
}

}  // namespace

train::StepBatch random_batch(const std::vector<std::vector<int64_t>>& micro_lengths, uint64_t seed) {
  train::StepBatch batch;
  for (const auto& lengths : micro_lengths) {
    train::MicroBatch& micro = batch.micro.emplace_back();
    for (const int64_t length : lengths) {
      add_document(micro, random_ids(length, 256, ++seed));
      batch.documents.push_back("test/" + std::to_string(batch.documents.size()));
    }
  }
  finish(batch);
  return batch;
}

train::StepBatch rearranged(const train::StepBatch& batch, const std::vector<int64_t>& parts) {
  std::vector<at::Tensor> documents;
  for (const train::MicroBatch& micro : batch.micro)
    for (size_t s = 0; s + 1 < micro.sequence_begin.size(); ++s)
      documents.push_back(
          micro.tokens.narrow(0, micro.sequence_begin[s], micro.sequence_begin[s + 1] - micro.sequence_begin[s]));
  train::StepBatch result;
  result.documents = batch.documents;
  size_t next = 0;
  for (const int64_t count : parts) {
    train::MicroBatch& micro = result.micro.emplace_back();
    for (int64_t i = 0; i < count; ++i) add_document(micro, documents.at(next++));
  }
  finish(result);
  return result;
}

double greatest_difference(const std::map<std::string, at::Tensor>& a, const std::map<std::string, at::Tensor>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double worst = 0;
  for (const auto& [name, tensor] : a) {
    const double difference = (tensor.detach() - b.at(name).detach()).abs().max().item<double>();
    if (std::isnan(difference)) return difference;
    worst = std::max(worst, difference);
  }
  return worst;
}

std::shared_ptr<const data::Dataset> records_dataset(const std::filesystem::path& out,
                                                     std::vector<data::Record> records) {
  ListSource source(std::move(records));
  data::Encoding encoding = data_encoding();
  encoding.image_processor = train_images();
  data::build(source, encoding, {.out = out, .name = "test"});
  return data::Dataset::open(out);
}

std::shared_ptr<const data::Dataset> text_dataset(const std::filesystem::path& out,
                                                  const std::vector<std::string>& texts) {
  std::vector<data::Record> records;
  for (const std::string& text : texts) records.push_back(document(text));
  return records_dataset(out, std::move(records));
}

}  // namespace puna::test
