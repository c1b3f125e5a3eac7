// Looking on while weights are multiplied: what calibration learns from. Dense weights without a gradient only.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "ops/weight.h"

namespace puna::ops {

class LinearObserver {
 public:
  virtual ~LinearObserver() = default;
  /// Before x [T, in] is multiplied.
  virtual void linear(const Weight& weight, const at::Tensor& x) = 0;
  /// Before rows sorted by expert [N, in] are; `offsets` as of grouped_linear().
  virtual void grouped(const Weight& weight, const at::Tensor& x, const std::vector<int64_t>& offsets) = 0;
};

/// While one lives, this thread's products are shown to the observer.
class Observing {
 public:
  explicit Observing(LinearObserver& observer);
  ~Observing();
  Observing(const Observing&) = delete;
  Observing& operator=(const Observing&) = delete;

 private:
  LinearObserver* previous_;
};

/// nullptr when nobody looks on.
LinearObserver* observer();

}  // namespace puna::ops
