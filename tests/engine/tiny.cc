#include "tests/engine/tiny.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "checkpoint/tensor_models.h"
#include "engine/sequence.h"

namespace puna::test {
namespace {

class OneThread : public testing::Environment {
  void SetUp() override { at::set_num_threads(1); }
};
[[maybe_unused]] const auto* const kOneThread = testing::AddGlobalTestEnvironment(new OneThread);

arch::Llama4Config config_of(const TinyOptions& options) {
  arch::Llama4Config config;
  arch::TextConfig& t = config.text;
  t.vocab_size = options.vocab_size;
  t.hidden_size = options.width;
  t.num_hidden_layers = 4;
  t.num_attention_heads = 4;
  t.num_key_value_heads = 2;
  t.head_dim = 8;
  t.intermediate_size = options.width * 3 / 4;
  t.intermediate_size_mlp = options.width * 5 / 4;
  t.num_local_experts = 4;
  t.moe_layers = {0, 1, 3};
  t.uses_rope = {1, 1, 1, 0};
  t.floor_scale = 4;
  t.attention_chunk_size = options.chunk;
  t.max_position_embeddings = options.context;
  arch::VisionConfig v;
  v.hidden_size = 16;
  v.num_hidden_layers = 2;
  v.num_attention_heads = 2;
  v.intermediate_size = 64;
  v.image_size = 56;
  v.vision_output_dim = 12;
  config.vision = v;
  config.image_token_id = options.vocab_size - 1;
  return config;
}

}  // namespace

engine::LoadedModel tiny_model(const TinyOptions& options) {
  engine::LoadedModel loaded;
  loaded.name = "tiny";
  loaded.dtype = options.dtype;
  loaded.source = checkpoint::random_model(config_of(options), options.seed, /*embedding_deviation=*/1);
  loaded.model = model::Model::load(*loaded.source, {.dtype = options.dtype, .device = at::kCPU});
  return loaded;
}

std::vector<engine::TokenId> random_tokens(int64_t count, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  const at::Tensor ids = at::randint(0, 90, {count}, generator, at::TensorOptions().dtype(at::kInt));
  return {ids.const_data_ptr<int32_t>(), ids.const_data_ptr<int32_t>() + count};
}

engine::Prompt prompt_of(std::vector<engine::TokenId> tokens) {
  engine::Prompt prompt;
  prompt.tokens = std::move(tokens);
  return prompt;
}

engine::Request request_of(std::vector<engine::TokenId> tokens, int64_t max_tokens) {
  engine::Request request;
  request.prompt = prompt_of(std::move(tokens));
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  request.sampling.logprobs = 0;
  return request;
}

std::vector<engine::TokenId> alone(const engine::LoadedModel& loaded, const engine::Request& request) {
  engine::Sequence sequence(loaded);
  engine::Sampler sampler(request.sampling);
  engine::Guide guide(request.grammar);
  for (const engine::TokenId id : request.prompt.tokens) sampler.observe(id);
  std::vector<engine::TokenId> tokens;
  auto logits = sequence.prefill(request.prompt).value();
  while (std::ssize(tokens) < request.max_tokens) {
    const engine::TokenId id = sampler.sample(logits, guide.mask()).id;
    if (std::binary_search(loaded.stop_tokens.begin(), loaded.stop_tokens.end(), id)) break;
    guide.accept(id);
    tokens.push_back(id);
    if (sequence.full()) break;
    logits = sequence.step(tokens.back());
  }
  return tokens;
}

int64_t cache_bytes(const engine::LoadedModel& loaded, int64_t blocks) {
  const auto bytes = model::page_bytes(loaded.config().text, model::PageFormat::of(loaded.dtype, loaded.device, false));
  return blocks * (bytes.global + bytes.chunk);
}

engine::Prompt image_prompt(const engine::LoadedModel& loaded, int64_t before, const std::vector<uint64_t>& keys) {
  const at::InferenceMode guard;
  const int64_t rows = loaded.config().vision->tokens_per_tile(), side = loaded.config().vision->image_size;
  engine::Prompt prompt = prompt_of(random_tokens(before, 31));
  std::vector<at::Tensor> features;
  for (const uint64_t key : keys) {
    prompt.tokens.insert(prompt.tokens.end(), static_cast<size_t>(rows),
                         static_cast<engine::TokenId>(loaded.config().image_token_id));
    for (const engine::TokenId id : random_tokens(3, key)) prompt.tokens.push_back(id);
    prompt.image_keys.push_back(key);
    prompt.image_rows.push_back(rows);
    features.push_back(loaded.model->encode_images(at::full({1, 3, side, side}, static_cast<double>(key) - 2)));
  }
  prompt.features = at::cat(features);
  return prompt;
}

}  // namespace puna::test
