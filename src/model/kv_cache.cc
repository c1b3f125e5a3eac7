#include "model/kv_cache.h"

#include <algorithm>

#include "base/error.h"

namespace puna::model {
namespace {

constexpr int64_t kFirstRows = 64;

}  // namespace

KvCache::KvCache(const arch::TextConfig& config, at::ScalarType dtype, at::Device device)
    : chunk_(config.attention_chunk_size) {
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  for (const arch::LayerPlan& plan : arch::layer_plan(config)) {
    const at::Tensor none = at::empty({config.num_key_value_heads, 0, config.head_dim}, options);
    layers_.push_back({plan.chunked, none, none});
  }
}

// Grows by half at a time, so that appending costs a constant per position; a chunked layer never beyond its chunk.
void KvCache::reserve(Layer& layer, int64_t rows) const {
  const int64_t capacity = layer.keys.size(1);
  if (rows <= capacity) return;
  int64_t grown = std::max({rows, kFirstRows, capacity + capacity / 2});
  if (layer.chunked) grown = std::min(grown, chunk_);
  for (at::Tensor* stored : {&layer.keys, &layer.values}) {
    at::Tensor larger = at::empty({stored->size(0), grown, stored->size(2)}, stored->options());
    larger.narrow(1, 0, capacity).copy_(*stored);
    *stored = larger;
  }
}

KvCache::View KvCache::append(int index, const at::Tensor& k_TGK, const at::Tensor& v_TGK, int64_t position) {
  Layer& layer = layers_.at(index);
  const int64_t T = k_TGK.size(0), end = position + T;
  PUNA_CHECK(position == layer.end, "layer {} holds {} positions, the step starts at {}", index, layer.end, position);
  PUNA_CHECK(T > 0 && v_TGK.size(0) == T, "{} keys and {} values", T, v_TGK.size(0));
  const at::Tensor k_GTK = k_TGK.detach().permute({1, 0, 2}), v_GTK = v_TGK.detach().permute({1, 0, 2});
  const int64_t start = layer.chunked ? position / chunk_ * chunk_ : 0;
  const int64_t stored = position - start;
  const auto view = [&](const at::Tensor& keys_GSK, const at::Tensor& values_GSK) {
    return View{keys_GSK.permute({1, 0, 2}), values_GSK.permute({1, 0, 2}), start};
  };

  if (!layer.chunked || end - start <= chunk_) {
    layer.first = start;
    reserve(layer, end - start);
    layer.keys.narrow(1, stored, T).copy_(k_GTK);
    layer.values.narrow(1, stored, T).copy_(v_GTK);
    layer.end = end;
    return view(layer.keys.narrow(1, 0, end - start), layer.values.narrow(1, 0, end - start));
  }

  // The step crosses a chunk edge: its queries need rows that are not kept, so that the view is a copy.
  View result = stored == 0 ? view(k_GTK, v_GTK)
                            : view(at::cat({layer.keys.narrow(1, 0, stored), k_GTK}, 1),
                                   at::cat({layer.values.narrow(1, 0, stored), v_GTK}, 1));
  layer.first = (end - 1) / chunk_ * chunk_;
  const int64_t kept = end - layer.first;
  reserve(layer, kept);
  layer.keys.narrow(1, 0, kept).copy_(k_GTK.narrow(1, T - kept, kept));
  layer.values.narrow(1, 0, kept).copy_(v_GTK.narrow(1, T - kept, kept));
  layer.end = end;
  return result;
}

int64_t KvCache::length() const { return layers_.empty() ? 0 : layers_.back().end; }

int64_t KvCache::earliest_length() const {
  int64_t earliest = 0;
  for (const Layer& layer : layers_) earliest = std::max(earliest, layer.first);
  return earliest;
}

void KvCache::truncate(int64_t length) {
  if (length < 0 || length > this->length() || (length != 0 && length < earliest_length()))
    fail("kv cache", "cannot go back to {} of {} positions: the chunk now held starts at {}; start again from 0",
         length, this->length(), earliest_length());
  for (Layer& layer : layers_) {
    layer.end = length;
    if (length == 0) layer.first = 0;
  }
}

int64_t KvCache::bytes() const {
  int64_t sum = 0;
  for (const Layer& layer : layers_) sum += static_cast<int64_t>(layer.keys.nbytes() + layer.values.nbytes());
  return sum;
}

}  // namespace puna::model
