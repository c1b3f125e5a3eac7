// The vision model: tiles to image features in the text model's width (SPEC 4). Tiles never attend to each other.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "arch/config.h"
#include "model/parts.h"
#include "ops/weight.h"

namespace puna::model {

class VisionModel {
 public:
  /// Keeps references into `weights`.
  VisionModel(const arch::VisionConfig& config, const Weights& weights, at::Device device);

  /// Tiles [B, 3, S, S] -> [B * tokens_per_tile, D], a few tiles at a time so that memory is bounded.
  at::Tensor forward(const at::Tensor& pixels, Trace* trace) const;

 private:
  struct Linear {
    const ops::Weight *weight, *bias;
  };
  struct LayerNorm {
    const ops::Weight *weight, *bias;
  };
  struct Layer {
    LayerNorm input_norm, post_norm;
    Linear q, k, v, o, fc1, fc2;
  };

  at::Tensor tiles(const at::Tensor& pixels, Trace* trace) const;
  at::Tensor embed(const at::Tensor& pixels, Trace* trace) const;
  at::Tensor attention(const Layer& layer, const at::Tensor& x_BPD) const;
  at::Tensor pixel_shuffle(const at::Tensor& x_BPD) const;
  static at::Tensor linear(const Linear& linear, const at::Tensor& x_BPD);
  static at::Tensor norm(const LayerNorm& norm, const at::Tensor& x_BPD);

  const arch::VisionConfig config_;
  const ops::Weight *patch_embedding_, *class_embedding_, *position_embedding_, *adapter_fc1_, *adapter_fc2_,
      *projector_;
  LayerNorm norm_pre_, norm_post_;
  std::vector<Layer> layers_;
  at::Tensor rotations_;  // [P + 1, 1, K/2] complex64
};

}  // namespace puna::model
