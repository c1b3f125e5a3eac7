#include "model/vision_model.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "ops/linear.h"
#include "ops/rope.h"

namespace puna::model {
namespace {

// Patches: 4 tiles of Scout, whose activations are large; many of a small model.
constexpr int64_t kRowsAtOnce = 2400;
constexpr double kLayerNormEps = 1e-5;  // SPEC 4: the config's norm_eps is not used

// Patches rotate by (column + 1) in the first half of the pairs and (row + 1) in the second; the class token does not.
at::Tensor patch_rotations(const arch::VisionConfig& config, at::Device device, at::ScalarType dtype) {
  const int64_t K = config.hidden_size / config.num_attention_heads, grid = config.grid();
  const std::vector<double> frequencies = ops::rope_frequencies(config.rope_theta, K / 2);
  std::vector<int64_t> columns, rows;
  for (int64_t patch = 0; patch < grid * grid; ++patch) {
    columns.push_back(patch % grid + 1);
    rows.push_back(patch / grid + 1);
  }
  columns.push_back(0);
  rows.push_back(0);
  return at::cat(
      {ops::rotations(columns, frequencies, device, dtype), ops::rotations(rows, frequencies, device, dtype)}, -1);
}

}  // namespace

VisionModel::VisionModel(const arch::VisionConfig& config, const Weights& weights, at::Device device)
    : config_(config) {
  const auto weight = [&](const std::string& name) { return &find_weight(weights, name); };
  const auto linear = [&](const std::string& name) { return Linear{weight(name + ".weight"), weight(name + ".bias")}; };
  const auto norm = [&](const std::string& name) {
    return LayerNorm{weight(name + ".weight"), weight(name + ".bias")};
  };
  patch_embedding_ = weight("vision_model.patch_embedding.linear.weight");
  class_embedding_ = weight("vision_model.class_embedding");
  rotations_ = patch_rotations(config, device, class_embedding_->dense.scalar_type());
  position_embedding_ = weight("vision_model.positional_embedding_vlm");
  norm_pre_ = norm("vision_model.layernorm_pre");
  norm_post_ = norm("vision_model.layernorm_post");
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const std::string prefix = fmt::format("vision_model.model.layers.{}.", i), attn = prefix + "self_attn.";
    layers_.push_back({norm(prefix + "input_layernorm"), norm(prefix + "post_attention_layernorm"),
                       linear(attn + "q_proj"), linear(attn + "k_proj"), linear(attn + "v_proj"),
                       linear(attn + "o_proj"), linear(prefix + "mlp.fc1"), linear(prefix + "mlp.fc2")});
  }
  adapter_fc1_ = weight("vision_model.vision_adapter.mlp.fc1.weight");
  adapter_fc2_ = weight("vision_model.vision_adapter.mlp.fc2.weight");
  projector_ = weight("multi_modal_projector.linear_1.weight");
}

at::Tensor VisionModel::forward(const at::Tensor& pixels, Trace* trace) const {
  const int64_t S = config_.image_size;
  if (pixels.dim() != 4 || pixels.size(1) != config_.num_channels || pixels.size(2) != S || pixels.size(3) != S)
    fail("model", "image tiles must be [tiles, {}, {}, {}], got {}", config_.num_channels, S, S,
         fmt::join(pixels.sizes(), " x "));
  const int64_t num_tiles = pixels.size(0);
  const at::Tensor& like = class_embedding_->dense;
  if (num_tiles == 0) return at::empty({0, projector_->outputs()}, like.options().requires_grad(false));
  if (trace) {
    record(trace, "rope_cos", at::real(rotations_).squeeze(1).contiguous());
    record(trace, "rope_sin", at::imag(rotations_).squeeze(1).contiguous());
  }
  std::vector<at::Tensor> features;
  const int64_t step = trace ? num_tiles : std::max<int64_t>(1, kRowsAtOnce / (config_.grid() * config_.grid() + 1));
  for (int64_t begin = 0; begin < num_tiles; begin += step)
    features.push_back(
        tiles(pixels.narrow(0, begin, std::min(step, num_tiles - begin)).to(like.device(), like.scalar_type()), trace));
  return features.size() == 1 ? features[0] : at::cat(features);
}

at::Tensor VisionModel::tiles(const at::Tensor& pixels, Trace* trace) const {
  at::Tensor x_BPD = embed(pixels, trace);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const at::Tensor attn_out = attention(layer, norm(layer.input_norm, x_BPD));
    record(trace, static_cast<int>(i), "attn_out", attn_out);
    x_BPD = add_residual(x_BPD, attn_out, trace);
    const at::Tensor hidden = at::gelu(linear(layer.fc1, norm(layer.post_norm, x_BPD)));
    x_BPD = add_residual(x_BPD, linear(layer.fc2, hidden), trace);
    record(trace, static_cast<int>(i), "out", x_BPD);
  }
  x_BPD = norm(norm_post_, x_BPD);
  record(trace, "layernorm_post", x_BPD);
  const at::Tensor shuffled = pixel_shuffle(x_BPD.narrow(1, 0, x_BPD.size(1) - 1));
  record(trace, "pixel_shuffled", shuffled);
  const at::Tensor rows = shuffled.flatten(0, 1);
  const at::Tensor adapted = at::gelu(ops::linear(at::gelu(ops::linear(rows, *adapter_fc1_)), *adapter_fc2_));
  const at::Tensor projected = ops::linear(adapted, *projector_);
  if (trace) {
    record(trace, "adapter_out", adapted.unflatten(0, {pixels.size(0), -1}));
    record(trace, "projected", projected.unflatten(0, {pixels.size(0), -1}));
  }
  return projected;
}

at::Tensor VisionModel::embed(const at::Tensor& pixels, Trace* trace) const {
  const int64_t B = pixels.size(0), C = config_.num_channels, G = config_.grid(), P = config_.patch_size;
  const at::Tensor patches =
      pixels.view({B, C, G, P, G, P}).permute({0, 2, 4, 1, 3, 5}).reshape({B * G * G, C * P * P});
  const at::Tensor embedded = ops::linear(patches, *patch_embedding_).unflatten(0, {B, G * G});
  record(trace, "patch_embedding", embedded);
  const at::Tensor class_token = class_embedding_->dense.view({1, 1, -1}).expand({B, 1, -1});
  const at::Tensor x_BPD = norm(norm_pre_, at::cat({embedded, class_token}, 1) + position_embedding_->dense);
  record(trace, "layernorm_pre", x_BPD);
  return x_BPD;
}

at::Tensor VisionModel::attention(const Layer& layer, const at::Tensor& x_BPD) const {
  const int64_t heads = config_.num_attention_heads, K = config_.hidden_size / heads;
  const auto split = [&](const Linear& projection) { return linear(projection, x_BPD).unflatten(-1, {heads, K}); };
  const at::Tensor q = ops::rotate(split(layer.q), rotations_).transpose(1, 2);
  const at::Tensor k = ops::rotate(split(layer.k), rotations_).transpose(1, 2);
  const at::Tensor attended = at::scaled_dot_product_attention(q, k, split(layer.v).transpose(1, 2));
  return linear(layer.o, attended.transpose(1, 2).flatten(2));
}

at::Tensor VisionModel::pixel_shuffle(const at::Tensor& x_BPD) const {
  const auto n = static_cast<int64_t>(std::lround(1 / config_.pixel_shuffle_ratio));
  const int64_t B = x_BPD.size(0), G = config_.grid(), D = x_BPD.size(2);
  return x_BPD.reshape({B, G / n, n, G / n, n, D}).permute({0, 1, 3, 2, 4, 5}).reshape({B, G * G / (n * n), n * n * D});
}

at::Tensor VisionModel::linear(const Linear& linear, const at::Tensor& x_BPD) {
  return ops::linear(x_BPD.flatten(0, 1), *linear.weight, linear.bias->dense).unflatten(0, {x_BPD.size(0), -1});
}

at::Tensor VisionModel::norm(const LayerNorm& norm, const at::Tensor& x_BPD) {
  return at::layer_norm(x_BPD, {x_BPD.size(-1)}, norm.weight->dense, norm.bias->dense, kLayerNormEps);
}

}  // namespace puna::model
