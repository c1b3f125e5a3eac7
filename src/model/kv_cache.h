// Keys and values of one sequence: bounded for chunked layers, growing for global ones.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "arch/layer_plan.h"

namespace puna::model {

class KvCache {
 public:
  KvCache(const arch::TextConfig& config, at::ScalarType dtype, at::Device device);

  /// Keys and values that the queries of this step may see, oldest first; row 0 is position `first_position`.
  /// Valid until the next append() or truncate().
  struct View {
    at::Tensor keys;    // [S, G, K]
    at::Tensor values;  // [S, G, K]
    int64_t first_position;
  };

  /// Stores this step's keys and values (after rope and norm) of a layer and returns all that its queries may see: for
  /// a chunked layer from the start of the chunk that holds `position`, for a global one from 0. `position` must be
  /// the number of positions that the layer has stored.
  View append(int layer, const at::Tensor& k_TGK, const at::Tensor& v_TGK, int64_t position);

  /// Positions stored so far (the same for all layers between steps).
  int64_t length() const;
  /// The earliest length that truncate() accepts, other than 0: where the chunk of the last position starts.
  int64_t earliest_length() const;
  /// Forgets everything from `length` on. Chunked layers keep the current chunk only, so it must not be earlier than
  /// that chunk's start, or be 0. Throws Error otherwise, with nothing changed.
  void truncate(int64_t length);
  /// Bytes held, both kinds of layers.
  int64_t bytes() const;

 private:
  struct Layer {
    bool chunked;
    at::Tensor keys, values;  // [G, capacity, K]
    int64_t first = 0;        // position of row 0
    int64_t end = 0;          // one past the last position stored
  };

  void reserve(Layer& layer, int64_t rows) const;

  std::vector<Layer> layers_;
  int64_t chunk_;
};

}  // namespace puna::model
