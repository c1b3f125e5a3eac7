// src/model: the one definition of Llama 4: norm, rope, attention, experts, blocks, text, vision, fusion (SPEC 3 and
// 4). Trainer, sampler and server all run this code; loops over steps belong to engine and train.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <string>

#include "arch/config.h"
#include "checkpoint/adapter.h"
#include "checkpoint/model_source.h"
#include "experts/store.h"
#include "model/batch.h"
#include "model/training.h"
#include "ops/weight.h"

namespace puna::model {

/// Records internals under the names of SPEC section 10 ("embeds", "layers.0.q", ...). Optional in every forward.
using Trace = std::map<std::string, at::Tensor>;

/// What becomes of weights: integers are kept as they are stored and multiplied by rows quantised to INT8, FP8 with a
/// scale each output and BF16 kept and multiplied by rows of BF16, where that is the arithmetic; or all are tensors,
/// dequantised. Other quantised formats, and all on a GPU, are dequantised either way.
enum class WeightForm { kStored, kDense };

struct LoadOptions {
  at::ScalarType dtype = at::kBFloat16;  // of the arithmetic, and of dense weights
  at::Device device = at::kCPU;
  WeightForm weights = WeightForm::kStored;
  int64_t expert_bytes = 0;  // memory for the routed experts of a packed file, the others staying there; 0: all
};

/// Bytes of a model's weights in memory, by how they are held.
struct WeightBytes {
  int64_t packed = 0;                           // as they are stored, laid out for the kernels
  int64_t experts = 0;                          // of these, routed experts of a packed file
  int64_t dequantised = 0;                      // stored as fewer bits, dense here
  int64_t dense = 0;                            // the rest
  int64_t num_packed = 0, num_dequantised = 0;  // rows of the table
  int64_t total() const { return packed + dequantised + dense; }
};
WeightBytes weight_bytes(const checkpoint::ModelSource& source, const LoadOptions& options);

class Model {
 public:
  /// Loads every row of the table. Zero-copy rows stay mapped.
  static std::unique_ptr<Model> load(const checkpoint::ModelSource& source, const LoadOptions& options);
  ~Model();

  const arch::Llama4Config& config() const;

  /// Logits [R, V] of the batch's output rows (all T by default), in the model's dtype.
  at::Tensor forward(const Batch& batch, Trace* trace = nullptr) const;

  /// The same up to the final norm: [R, D], which the head is applied to. `training` adds what a training step needs.
  at::Tensor hidden(const Batch& batch, Trace* trace = nullptr, TrainingPass* training = nullptr) const;

  /// Image features [B * tokens_per_tile, D] of tiles [B, 3, S, S], in order; ready for Batch::image_features.
  at::Tensor encode_images(const at::Tensor& pixels, Trace* trace = nullptr) const;

  /// Adds an adapter to its weights; several add up. With a number it counts where it is applied (ops/adapters.h), else
  /// always. Throws Error, and changes nothing, for one that does not fit.
  void add_adapter(const checkpoint::Adapter& adapter, int number = ops::LowRank::kAlways);
  void check_adapter(const checkpoint::Adapter& adapter) const;
  void remove_adapter(int number);

  /// Of the routed experts that stay in their file; null when all are in memory.
  experts::ExpertStore* expert_store() const;

  /// All parameters by Puna's name: to train (requires_grad), to save, to inspect.
  const std::map<std::string, ops::Weight>& weights() const;
  std::map<std::string, ops::Weight>& weights();

 private:
  struct Impl;
  explicit Model(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace puna::model
