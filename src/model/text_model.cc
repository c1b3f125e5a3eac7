#include "model/text_model.h"

#include "model/kv_cache.h"
#include "ops/attention.h"
#include "ops/linear.h"
#include "ops/moe.h"
#include "ops/norm.h"
#include "ops/rope.h"

namespace puna::model {

TextModel::TextModel(const arch::Llama4Config& config, const Weights& weights)
    : config_(config.text), patch_token_(config.image_token_id), frequencies_(rope_frequencies(config.text)) {
  const auto weight = [&](const std::string& name) { return &find_weight(weights, name); };
  embedding_ = weight("model.embed_tokens.weight");
  for (const arch::LayerPlan& plan : arch::layer_plan(config_)) {
    const std::string prefix = fmt::format("model.layers.{}.", plan.index), ff = prefix + "feed_forward.";
    const std::string dense = plan.moe ? ff + "shared_expert." : ff;
    layers_.push_back({
        .plan = plan,
        .input_norm = weight(prefix + "input_layernorm.weight"),
        .q = weight(prefix + "self_attn.q_proj.weight"),
        .k = weight(prefix + "self_attn.k_proj.weight"),
        .v = weight(prefix + "self_attn.v_proj.weight"),
        .o = weight(prefix + "self_attn.o_proj.weight"),
        .post_norm = weight(prefix + "post_attention_layernorm.weight"),
        .ffn = {weight(dense + "gate_proj.weight"), weight(dense + "up_proj.weight"),
                weight(dense + "down_proj.weight")},
        .router = plan.moe ? weight(ff + "router.weight") : nullptr,
        .gate_up = plan.moe ? weight(ff + "experts.gate_up_proj") : nullptr,
        .down = plan.moe ? weight(ff + "experts.down_proj") : nullptr,
    });
  }
  norm_ = weight("model.norm.weight");
  head_ = weight("lm_head.weight");
}

at::Tensor TextModel::forward(const Batch& batch, Trace* trace) const {
  return ops::linear(hidden(batch, trace, nullptr), *head_);
}

at::Tensor TextModel::hidden(const Batch& batch, Trace* trace, [[maybe_unused]] TrainingPass* training) const {
  const Step step(batch, config_, frequencies_);
  at::Tensor x_TD = embed(step);
  record(trace, "embeds", x_TD);
  for (const Layer& layer : layers_) {
    const at::Tensor normed_TD = ops::rms_norm(x_TD, layer.input_norm->dense, config_.rms_norm_eps);
    x_TD = add_residual(x_TD, attention(layer, normed_TD, step, trace), trace);
    const at::Tensor ffn_in_TD = ops::rms_norm(x_TD, layer.post_norm->dense, config_.rms_norm_eps);
    const at::Tensor ffn_out_TD =
        layer.plan.moe ? experts(layer, ffn_in_TD, trace) : feed_forward(layer.ffn, ffn_in_TD);
    record(trace, layer.plan.index, "ffn_out", ffn_out_TD);
    x_TD = add_residual(x_TD, ffn_out_TD, trace);
    record(trace, layer.plan.index, "out", x_TD);
  }
  if (batch.output_rows.defined()) x_TD = x_TD.index_select(0, batch.output_rows);
  const at::Tensor final_RD = ops::rms_norm(x_TD, norm_->dense, config_.rms_norm_eps);
  record(trace, "final_norm", final_RD);
  return final_RD;
}

at::Tensor TextModel::embed(const Step& step) const {
  const Batch& batch = step.batch;
  at::Tensor x_TD = at::embedding(embedding_->dense, batch.tokens);
  if (!batch.image_features.defined()) return x_TD;
  std::vector<int64_t> rows;
  for (int64_t t = 0; t < step.num_tokens; ++t)
    if (step.token_ids[t] == patch_token_) rows.push_back(t);
  const at::Tensor& features = batch.image_features;
  if (features.dim() != 2 || features.size(0) != static_cast<int64_t>(rows.size()) || features.size(1) != x_TD.size(1))
    fail("model", "the prompt has {} <|patch|> tokens for {} image features of width {}, the model's width is {}",
         rows.size(), features.size(0), features.size(-1), x_TD.size(1));
  if (rows.empty()) return x_TD;
  return at::index_copy(x_TD, 0, at::tensor(rows, at::kLong).to(x_TD.device()), features.to(x_TD.options()));
}

at::Tensor TextModel::attention(const Layer& layer, const at::Tensor& x_TD, const Step& step, Trace* trace) const {
  const arch::LayerPlan& plan = layer.plan;
  const int64_t T = step.num_tokens, K = config_.head_dim;
  at::Tensor q_THK = ops::linear(x_TD, *layer.q).view({T, config_.num_attention_heads, K});
  at::Tensor k_TGK = ops::linear(x_TD, *layer.k).view({T, config_.num_key_value_heads, K});
  const at::Tensor v_TGK = ops::linear(x_TD, *layer.v).view({T, config_.num_key_value_heads, K});
  if (plan.rope) {
    q_THK = ops::rotate(q_THK, step.rotations);
    k_TGK = ops::rotate(k_TGK, step.rotations);
  }
  if (plan.qk_norm) {
    q_THK = ops::unit_rms(q_THK, config_.rms_norm_eps);
    k_TGK = ops::unit_rms(k_TGK, config_.rms_norm_eps);
  }
  if (plan.temperature && step.temperatures.defined()) q_THK = (q_THK * step.temperatures).to(q_THK.scalar_type());
  if (trace) {
    record(trace, plan.index, "q", q_THK.permute({1, 0, 2}));
    record(trace, plan.index, "k", k_TGK.permute({1, 0, 2}));
    record(trace, plan.index, "v", v_TGK.permute({1, 0, 2}));
  }
  const at::Tensor out_TD = ops::linear(attend(layer, q_THK, k_TGK, v_TGK, step), *layer.o);
  record(trace, plan.index, "attn_out", out_TD);
  return out_TD;
}

at::Tensor TextModel::attend(const Layer& layer, const at::Tensor& q_THK, const at::Tensor& k_TGK,
                             const at::Tensor& v_TGK, const Step& step) const {
  const auto& spans_of = layer.plan.chunked ? step.chunks : step.whole;
  std::vector<at::Tensor> pieces;
  for (size_t i = 0; i < spans_of.size(); ++i) {
    const int64_t row = step.batch.sequence_begin[i], rows = step.batch.sequence_begin[i + 1] - row;
    const int64_t first = step.batch.first_position[i];
    KvCache::View view = {k_TGK.narrow(0, row, rows), v_TGK.narrow(0, row, rows), first};
    if (!step.batch.caches.empty())
      view = step.batch.caches[i]->append(layer.plan.index, view.keys, view.values, first);
    for (const Span& span : spans_of[i]) {
      const int64_t oldest = std::max(span.first_key, view.first_position);
      const int64_t begin = oldest - view.first_position, num_keys = span.position + span.num_rows - oldest;
      pieces.push_back(ops::attention(q_THK.narrow(0, span.row, span.num_rows), view.keys.narrow(0, begin, num_keys),
                                      view.values.narrow(0, begin, num_keys)));
    }
  }
  return pieces.size() == 1 ? pieces[0] : at::cat(pieces);
}

at::Tensor TextModel::feed_forward(const Ffn& ffn, const at::Tensor& x_TD) {
  return ops::linear(ops::swiglu(ops::linear(x_TD, *ffn.gate), ops::linear(x_TD, *ffn.up)), *ffn.down);
}

at::Tensor TextModel::experts(const Layer& layer, const at::Tensor& x_TD, Trace* trace) const {
  const at::Tensor logits_TE = ops::linear(x_TD, *layer.router);
  const auto score = config_.router_activation == arch::RouterActivation::kSigmoid ? ops::RouterScore::kSigmoid
                                                                                   : ops::RouterScore::kSoftmax;
  const ops::Routing routing = ops::route(logits_TE, config_.num_experts_per_tok, score);
  if (trace) {
    record(trace, layer.plan.index, "router_logits", logits_TE);
    record(trace, layer.plan.index, "router_scores",
           at::zeros_like(logits_TE).scatter(1, routing.selected, routing.scores));
    record(trace, layer.plan.index, "selected", routing.selected.to(at::kInt));
  }
  const at::Tensor scores_N1 = ops::gather_scores(routing);
  at::Tensor rows_ND = ops::gather_rows(x_TD, routing);
  if (config_.score_on == arch::ScoreOn::kInput) rows_ND = rows_ND * scores_N1;
  const std::vector<at::Tensor> halves = ops::grouped_linear(rows_ND, *layer.gate_up, routing.offsets).chunk(2, -1);
  rows_ND = ops::grouped_linear(ops::swiglu(halves[0], halves[1]), *layer.down, routing.offsets);
  if (config_.score_on == arch::ScoreOn::kOutput) rows_ND = rows_ND * scores_N1;
  const at::Tensor shared_TD = feed_forward(layer.ffn, x_TD);
  const at::Tensor routed_TD = ops::combine_rows(rows_ND, routing);
  return ops::recording() ? shared_TD + routed_TD : shared_TD.add_(routed_TD);
}

}  // namespace puna::model
