#include "model/text_model.h"

#include <algorithm>

#include "model/kv_cache.h"
#include "model/paged_cache.h"
#include "model/recompute.h"
#include "model/routing_statistics.h"
#include "ops/attention.h"
#include "ops/experts.h"
#include "ops/fused.h"
#include "ops/linear.h"
#include "ops/moe.h"
#include "ops/norm.h"

namespace puna::model {
namespace {

ops::RouterScore score_of(const arch::TextConfig& config) {
  return config.router_activation == arch::RouterActivation::kSigmoid ? ops::RouterScore::kSigmoid
                                                                      : ops::RouterScore::kSoftmax;
}

at::TensorOptions loss_options(const at::Tensor& x) {
  return x.options().dtype(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat).requires_grad(false);
}

}  // namespace

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

at::Tensor TextModel::hidden(const Batch& batch, Trace* trace, TrainingPass* training) const {
  const auto step = std::make_shared<const Step>(batch, config_, frequencies_, embedding_->dense.scalar_type());
  at::Tensor x_TD = embed(*step);
  record(trace, "embeds", x_TD);
  x_TD = layers(x_TD, step, trace, training);
  if (batch.output_rows.defined()) x_TD = x_TD.index_select(0, batch.output_rows);
  const at::Tensor final_RD = ops::rms_norm(x_TD, norm_->dense, config_.rms_norm_eps);
  record(trace, "final_norm", final_RD);
  return final_RD;
}

at::Tensor TextModel::layers(at::Tensor x_TD, const std::shared_ptr<const Step>& step, Trace* trace,
                             TrainingPass* training) const {
  if (training) {
    PUNA_CHECK(training->selection_bias.empty() || training->selection_bias.size() == layers_.size(),
               "{} selection biases for {} layers", training->selection_bias.size(), layers_.size());
    training->routing.resize(layers_.size());
    if (!training->auxiliary_loss.defined()) training->auxiliary_loss = at::zeros({}, loss_options(x_TD));
  }
  for (const Layer& layer : layers_) {
    LayerPass pass;
    if (training) {
      pass.training = training;
      if (!training->selection_bias.empty()) pass.selection_bias = training->selection_bias[layer.plan.index];
      pass.load_balance_weight = training->load_balance_weight;
      pass.router_z_weight = training->router_z_weight;
    }
    if (training && training->recompute && ops::recording() && !trace) {
      const std::vector<at::Tensor> outputs = recomputed_block(layer, x_TD, step, pass);
      x_TD = outputs[0];
      if (outputs.size() > 1) pass.auxiliary_loss = outputs[1];
    } else {
      x_TD = block(layer, x_TD, *step, trace, pass);
    }
    if (pass.auxiliary_loss.defined()) training->auxiliary_loss = training->auxiliary_loss + pass.auxiliary_loss;
  }
  return x_TD;
}

at::Tensor TextModel::block(const Layer& layer, at::Tensor x_TD, const Step& step, Trace* trace,
                            LayerPass& pass) const {
  const at::Tensor normed_TD = ops::rms_norm(x_TD, layer.input_norm->dense, config_.rms_norm_eps);
  x_TD = add_residual(x_TD, attention(layer, normed_TD, step, trace), trace);
  const at::Tensor ffn_in_TD = ops::rms_norm(x_TD, layer.post_norm->dense, config_.rms_norm_eps);
  const at::Tensor ffn_out_TD =
      layer.plan.moe ? experts(layer, ffn_in_TD, x_TD, step, trace, pass) : feed_forward(layer.ffn, ffn_in_TD);
  record(trace, layer.plan.index, "ffn_out", ffn_out_TD);
  x_TD = add_residual(x_TD, ffn_out_TD, trace);
  record(trace, layer.plan.index, "out", x_TD);
  return x_TD;
}

// Keeps `x_TD`, the step and a copy of the bias; the biases may move on before backward.
std::vector<at::Tensor> TextModel::recomputed_block(const Layer& layer, const at::Tensor& x_TD,
                                                    const std::shared_ptr<const Step>& step,
                                                    const LayerPass& pass) const {
  LayerPass kept = pass;
  if (kept.selection_bias.defined()) kept.selection_bias = kept.selection_bias.clone();
  return recomputed(x_TD, trainable_of(layer), [this, &layer, step, kept](const at::Tensor& x, bool again) {
    LayerPass mine = kept;
    if (again) mine.training = nullptr;
    std::vector<at::Tensor> outputs = {block(layer, x, *step, nullptr, mine)};
    if (mine.auxiliary_loss.defined()) outputs.push_back(mine.auxiliary_loss);
    return outputs;
  });
}

std::vector<at::Tensor> TextModel::trainable_of(const Layer& layer) {
  std::vector<at::Tensor> trainable;
  const auto add = [&](const at::Tensor& t) {
    if (t.requires_grad()) trainable.push_back(t);
  };
  for (const ops::Weight* weight :
       {layer.input_norm, layer.q, layer.k, layer.v, layer.o, layer.post_norm, layer.ffn.gate, layer.ffn.up,
        layer.ffn.down, layer.router, layer.gate_up, layer.down}) {
    if (!weight) continue;
    add(weight->dense);
    for (const ops::LowRank& adapter : weight->adapters) {
      add(adapter.a);
      add(adapter.b);
    }
  }
  return trainable;
}

at::Tensor TextModel::embed(const Step& step) const {
  const Batch& batch = step.batch;
  at::Tensor x_TD = at::embedding(embedding_->dense, batch.tokens);
  if (!batch.image_features.defined()) return x_TD;
  std::vector<int64_t> rows = batch.image_rows;
  for (int64_t t = 0; t < step.num_tokens && batch.image_rows.empty(); ++t)
    if (step.token_ids[t] == patch_token_) rows.push_back(t);
  const at::Tensor& features = batch.image_features;
  if (features.dim() != 2 || features.size(0) != static_cast<int64_t>(rows.size()) || features.size(1) != x_TD.size(1))
    fail("model", "the prompt has {} <|patch|> tokens for {} image features of width {}, the model's width is {}",
         rows.size(), features.size(0), features.size(-1), x_TD.size(1));
  if (rows.empty()) return x_TD;
  return at::index_copy(x_TD, 0, at::tensor(rows, at::kLong).to(x_TD.device()), features.to(x_TD.options()));
}

ops::HeadPreparation TextModel::preparation_of(const arch::LayerPlan& plan, const Step& step) const {
  ops::HeadPreparation preparation;
  if (plan.rope) preparation.rotations = step.rotations;
  if (plan.qk_norm) preparation.eps = config_.rms_norm_eps;
  if (plan.temperature) preparation.factors = step.temperatures;
  return preparation;
}

at::Tensor TextModel::attention(const Layer& layer, const at::Tensor& x_TD, const Step& step, Trace* trace) const {
  const arch::LayerPlan& plan = layer.plan;
  const int64_t T = step.num_tokens, K = config_.head_dim;
  if (!trace && step.batch.caches.empty() && !step.batch.pages && ops::can_fuse(x_TD))
    return fused_attention(layer, x_TD, step);
  const std::vector<at::Tensor> heads = ops::linears(x_TD, {layer.q, layer.k, layer.v});
  const ops::HeadPreparation preparation = preparation_of(plan, step);
  const at::Tensor q_THK = ops::prepared_heads(heads[0], preparation, true, K).view({T, -1, K});
  const at::Tensor k_TGK = ops::prepared_heads(heads[1], preparation, false, K).view({T, -1, K});
  const at::Tensor v_TGK = heads[2].view({T, -1, K});
  if (trace) {
    record(trace, plan.index, "q", q_THK.permute({1, 0, 2}));
    record(trace, plan.index, "k", k_TGK.permute({1, 0, 2}));
    record(trace, plan.index, "v", v_TGK.permute({1, 0, 2}));
  }
  const at::Tensor out_TD = ops::linear(attend(layer, q_THK, k_TGK, v_TGK, step), *layer.o);
  record(trace, plan.index, "attn_out", out_TD);
  return out_TD;
}

at::Tensor TextModel::fused_attention(const Layer& layer, const at::Tensor& x_TD, const Step& step) const {
  const arch::LayerPlan& plan = layer.plan;
  const ops::HeadPreparation preparation = preparation_of(plan, step);
  std::vector<at::Tensor> heads = ops::linears(x_TD, {layer.q, layer.k, layer.v});
  std::vector<ops::RowSpan> spans;
  for (const auto& of_sequence : plan.chunked ? step.chunks : step.whole)
    for (const Span& span : of_sequence) spans.push_back({span.row, span.num_rows});
  return ops::linear(ops::fused_attention(heads[0], heads[1], heads[2], config_.head_dim, preparation, spans),
                     *layer.o);
}

at::Tensor TextModel::attend(const Layer& layer, const at::Tensor& q_THK, const at::Tensor& k_TGK,
                             const at::Tensor& v_TGK, const Step& step) const {
  const auto& spans_of = layer.plan.chunked ? step.chunks : step.whole;
  PagedCache* pages = step.batch.pages;
  for (size_t i = 0; i < step.batch.tables.size(); ++i) {
    const int64_t row = step.batch.sequence_begin[i], rows = step.batch.sequence_begin[i + 1] - row;
    pages->store(layer.plan.index, step.batch.tables[i], k_TGK.narrow(0, row, rows), v_TGK.narrow(0, row, rows));
  }
  if (pages && pages->has_attention())
    return pages->attend(layer.plan.index, q_THK, step.batch.tables, step.batch.sequence_begin);
  std::vector<at::Tensor> pieces;
  for (size_t i = 0; i < spans_of.size(); ++i) {
    const int64_t row = step.batch.sequence_begin[i], rows = step.batch.sequence_begin[i + 1] - row;
    const int64_t first = step.batch.first_position[i];
    KvCache::View view = {k_TGK.narrow(0, row, rows), v_TGK.narrow(0, row, rows), first};
    if (!step.batch.caches.empty())
      view = step.batch.caches[i]->append(layer.plan.index, view.keys, view.values, first);
    if (pages) {
      const int64_t oldest = spans_of[i].front().first_key;
      const PagedCache::Rows all = pages->gather(layer.plan.index, step.batch.tables[i], oldest, first + rows);
      view = {all.keys, all.values, oldest};
    }
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
  return ops::feed_forward(x_TD, *ffn.gate, *ffn.up, *ffn.down);
}

at::Tensor TextModel::experts(const Layer& layer, const at::Tensor& in_TD, const at::Tensor& x_TD, const Step& step,
                              Trace* trace, LayerPass& pass) const {
  const at::Tensor logits_TE = ops::linear(in_TD, *layer.router);
  const ops::Routing routing =
      ops::route(logits_TE, config_.num_experts_per_tok, score_of(config_), pass.selection_bias);
  route_pass(layer, logits_TE, routing, step, pass);
  if (trace) {
    record(trace, layer.plan.index, "router_logits", logits_TE);
    record(trace, layer.plan.index, "router_scores",
           at::zeros_like(logits_TE).scatter(1, routing.selected, routing.scores));
    record(trace, layer.plan.index, "selected", routing.selected.to(at::kInt));
  }
  ops::ExpertWeights weights = {layer.ffn.gate, layer.ffn.up, layer.ffn.down, layer.gate_up, layer.down};
  if (layer.gate_up->streamed) weights.read_ahead = [this, &layer, &x_TD] { read_ahead(layer, x_TD); };
  return ops::experts(in_TD, routing, weights, config_.score_on == arch::ScoreOn::kInput);
}

/// The next layer's router applied to what goes into this layer's experts: often it chooses as it will.
void TextModel::read_ahead(const Layer& layer, const at::Tensor& x_TD) const {
  const auto next = std::find_if(layers_.begin() + layer.plan.index + 1, layers_.end(),
                                 [](const Layer& other) { return other.gate_up && other.gate_up->streamed; });
  if (next == layers_.end()) return;
  const at::Tensor logits_TE =
      ops::linear(ops::rms_norm(x_TD, next->post_norm->dense, config_.rms_norm_eps), *next->router);
  const at::Tensor chosen = std::get<1>(logits_TE.topk(config_.num_experts_per_tok)).flatten();
  const at::Tensor uses_E = at::bincount(chosen, /*weights=*/{}, config_.num_local_experts);
  std::vector<int> likely;
  const int64_t* uses = uses_E.const_data_ptr<int64_t>();
  for (int64_t e = 0; e < uses_E.numel(); ++e)
    if (uses[e] > 0) likely.push_back(static_cast<int>(e));
  std::stable_sort(likely.begin(), likely.end(), [&](int a, int b) { return uses[a] > uses[b]; });
  next->gate_up->streamed->store->prefetch(next->gate_up->streamed->layer, likely);
}

void TextModel::route_pass(const Layer& layer, const at::Tensor& logits_TE, const ops::Routing& routing,
                           const Step& step, LayerPass& pass) const {
  if (pass.training)
    add_statistics(pass.training->routing[layer.plan.index], logits_TE, routing, step.token_ids, patch_token_,
                   pass.selection_bias.defined());
  const auto add = [&](const at::Tensor& term, double weight) {
    pass.auxiliary_loss = pass.auxiliary_loss.defined() ? pass.auxiliary_loss + term * weight : term * weight;
  };
  if (pass.load_balance_weight != 0)
    add(ops::load_balance_loss(logits_TE, routing, score_of(config_)), pass.load_balance_weight);
  if (pass.router_z_weight != 0) add(ops::router_z_loss(logits_TE), pass.router_z_weight);
}

}  // namespace puna::model
