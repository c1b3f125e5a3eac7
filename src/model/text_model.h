// The text model: embedding, layers by the plan, final norm and head (SPEC 3).
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "arch/layer_plan.h"
#include "model/parts.h"
#include "model/step.h"
#include "model/training.h"
#include "ops/fused.h"
#include "ops/moe.h"
#include "ops/weight.h"

namespace puna::model {

class TextModel {
 public:
  /// Keeps references into `weights`; `patch_token` is the id whose embeddings image features replace.
  TextModel(const arch::Llama4Config& config, const Weights& weights);

  /// Logits [R, V] of the batch's output rows.
  at::Tensor forward(const Batch& batch, Trace* trace) const;
  /// The same up to the final norm: [R, D].
  at::Tensor hidden(const Batch& batch, Trace* trace, TrainingPass* training) const;

 private:
  struct Ffn {
    const ops::Weight *gate, *up, *down;
  };
  struct Layer {
    arch::LayerPlan plan;
    const ops::Weight *input_norm, *q, *k, *v, *o, *post_norm;
    Ffn ffn;                                     // dense, or the shared expert
    const ops::Weight *router, *gate_up, *down;  // routed experts; null in dense layers
  };

  // What one forward of one layer takes from a training pass, and gives to it.
  struct LayerPass {
    TrainingPass* training = nullptr;  // whose statistics are counted; null: none
    at::Tensor selection_bias;         // [E], or undefined
    double load_balance_weight = 0, router_z_weight = 0;
    at::Tensor auxiliary_loss;  // out; undefined without weights
  };

  at::Tensor embed(const Step& step) const;
  at::Tensor layers(at::Tensor x_TD, const std::shared_ptr<const Step>& step, Trace* trace,
                    TrainingPass* training) const;
  at::Tensor block(const Layer& layer, at::Tensor x_TD, const Step& step, Trace* trace, LayerPass& pass) const;
  std::vector<at::Tensor> recomputed_block(const Layer& layer, const at::Tensor& x_TD,
                                           const std::shared_ptr<const Step>& step, const LayerPass& pass) const;
  at::Tensor attention(const Layer& layer, const at::Tensor& x_TD, const Step& step, Trace* trace) const;
  ops::HeadPreparation preparation_of(const arch::LayerPlan& plan, const Step& step) const;
  at::Tensor fused_attention(const Layer& layer, const at::Tensor& x_TD, const Step& step) const;
  at::Tensor attend(const Layer& layer, const at::Tensor& q_THK, const at::Tensor& k_TGK, const at::Tensor& v_TGK,
                    const Step& step) const;
  /// `in_TD` is what the layer gets, `x_TD` the residual stream that it was made of.
  at::Tensor experts(const Layer& layer, const at::Tensor& in_TD, const at::Tensor& x_TD, const Step& step,
                     Trace* trace, LayerPass& pass) const;
  void read_ahead(const Layer& layer, const at::Tensor& x_TD) const;
  void route_pass(const Layer& layer, const at::Tensor& logits_TE, const ops::Routing& routing, const Step& step,
                  LayerPass& pass) const;
  static std::vector<at::Tensor> trainable_of(const Layer& layer);
  static at::Tensor feed_forward(const Ffn& ffn, const at::Tensor& x_TD);

  const arch::TextConfig config_;
  const int64_t patch_token_;
  std::vector<Layer> layers_;
  const ops::Weight *embedding_, *norm_, *head_;
  std::vector<double> frequencies_;  // [K/2]
};

}  // namespace puna::model
