#include "cli/golden_run.h"

#include <vector>

#include "arch/parameters.h"
#include "base/error.h"
#include "engine/sequence.h"
#include "ops/loss.h"

namespace puna::cli {
namespace {

at::Tensor features_of(const engine::LoadedModel& loaded, const at::Tensor& pixels) {
  return pixels.defined() ? loaded.model->encode_images(pixels) : at::Tensor();
}

engine::Prompt engine_prompt(const engine::LoadedModel& loaded, const GoldenPrompt& golden) {
  engine::Prompt prompt;
  for (int64_t i = 0; i < golden.ids.size(0); ++i)
    prompt.tokens.push_back(static_cast<engine::TokenId>(golden.ids[i].item<int64_t>()));
  prompt.features = features_of(loaded, golden.pixels);
  if (prompt.features.defined()) {
    prompt.image_keys = {0};  // one sequence, never compared with another
    prompt.image_rows = {prompt.features.size(0)};
  }
  return prompt;
}

at::Tensor logits_in_pieces(const engine::LoadedModel& loaded, const GoldenPrompt& golden, int64_t piece) {
  std::vector<at::Tensor> parts;
  engine::PrefillOptions options;
  options.piece_tokens = piece;
  options.logits_from = 0;
  options.on_logits = [&](int64_t, const at::Tensor& logits_TV) { parts.push_back(logits_TV.clone()); };
  engine::Sequence(loaded).prefill(engine_prompt(loaded, golden), options);
  return at::cat(parts);
}

at::Tensor logits_whole(const engine::LoadedModel& loaded, const GoldenPrompt& golden, model::Trace* trace) {
  model::Batch batch = model::Batch::single(golden.ids.to(loaded.device));
  batch.image_features = features_of(loaded, golden.pixels);
  return loaded.model->forward(batch, trace);
}

void add_sampled(const at::Tensor& logits_TV, const at::Tensor& columns, const std::string& suffix, GoldenOutput& out) {
  const auto [values, ids] = at::topk(logits_TV, std::min<int64_t>(20, logits_TV.size(1)), -1);
  out.add("sample_cols", columns.to(at::kInt));
  out.add("logits_sampled" + suffix, logits_TV.index_select(1, columns.to(at::kLong)));
  out.add("logsumexp" + suffix, at::logsumexp(logits_TV, -1));
  out.add("top20_ids" + suffix, ids.to(at::kInt));
  out.add("top20_logits" + suffix, values);
  out.add("logits_last" + suffix, logits_TV[-1]);
}

}  // namespace

void golden_logits(const engine::LoadedModel& loaded, const GoldenPrompt& prompt, const GoldenLogits& options,
                   GoldenOutput& out) {
  model::Trace trace;
  const at::Tensor logits_TV = options.pieces > 0 ? logits_in_pieces(loaded, prompt, options.pieces)
                                                  : logits_whole(loaded, prompt, options.trace ? &trace : nullptr);
  if (options.sample_cols)
    add_sampled(logits_TV.to(at::kCPU, at::kFloat), *options.sample_cols, prompt.suffix, out);
  else
    out.add(options.name + prompt.suffix, logits_TV);
  for (const auto& [name, tensor] : trace) out.add(name, tensor);
}

void golden_greedy(const engine::LoadedModel& loaded, const GoldenPrompt& golden, int64_t steps, GoldenOutput& out) {
  engine::Sequence sequence(loaded);
  engine::SamplingParams params;
  params.temperature = 0;
  engine::Sampler sampler(params);
  std::span<const float> logits = sequence.prefill(engine_prompt(loaded, golden)).value();
  const at::Tensor tokens = at::empty({steps}, at::kInt);
  for (int64_t i = 0; i < steps; ++i) {
    const engine::TokenId id = sampler.sample(logits).id;
    tokens[i] = id;
    if (i + 1 == steps) break;
    if (sequence.full())
      fail("--greedy", "{} tokens do not fit in the model's context; ask for at most {}", steps, i + 1);
    logits = sequence.step(id);
  }
  out.add("greedy" + golden.suffix, tokens);
}

void golden_vision_trace(const engine::LoadedModel& loaded, const at::Tensor& pixels, GoldenOutput& out) {
  model::Trace trace;
  loaded.model->encode_images(pixels, &trace);
  for (const auto& [name, tensor] : trace) out.add(name, tensor);
}

void golden_gradients(const engine::LoadedModel& loaded, const at::Tensor& ids, const at::Tensor& labels,
                      const at::Tensor& pixels, GoldenOutput& out) {
  for (auto& [name, weight] : loaded.model->weights()) ops::dense_of(weight).requires_grad_(true);
  const int64_t num_sequences = ids.size(0), length = ids.size(1);
  model::Batch batch;
  batch.tokens = ids.reshape({-1}).to(loaded.device);
  std::vector<at::Tensor> targets;
  for (int64_t i = 0; i < num_sequences; ++i) {
    batch.sequence_begin.push_back(i * length);
    batch.first_position.push_back(0);
    targets.push_back(ops::shifted_targets(labels[i]));
  }
  batch.sequence_begin.push_back(num_sequences * length);
  batch.image_features = features_of(loaded, pixels);
  const at::Tensor loss = ops::cross_entropy(loaded.model->forward(batch), at::cat(targets).to(loaded.device));
  loss.backward();
  out.add("loss", loss);
  for (const arch::ParamRow& row : loaded.source->rows()) {
    const at::Tensor& gradient = loaded.model->weights().at(row.name).dense.grad();
    if (gradient.defined()) out.add(arch::hf_name(loaded.config(), row), gradient);
  }
}

void merge_adapters(model::Model& model) {
  for (auto& [name, weight] : model.weights()) {
    for (const ops::LowRank& low : weight.adapters) {
      const at::Tensor product = at::matmul(low.b, low.a) * low.scale;  // [out, in], experts [E, out, in]
      weight.dense = ops::dense_of(weight) + (product.dim() == 3 ? product.transpose(1, 2) : product);
    }
    weight.adapters.clear();
  }
}

}  // namespace puna::cli
