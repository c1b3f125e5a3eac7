// Looking on while weights are multiplied, which calibration learns from (dense weights without a gradient only), and
// while routers choose.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "ops/moe.h"
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

/// While one lives, what this thread's routers choose is appended to `routes`, layer by layer.
class ObservingRoutes {
 public:
  explicit ObservingRoutes(std::vector<Routing>& routes);
  ~ObservingRoutes();
  ObservingRoutes(const ObservingRoutes&) = delete;
  ObservingRoutes& operator=(const ObservingRoutes&) = delete;

 private:
  std::vector<Routing>* previous_;
};

/// nullptr when nobody looks on.
std::vector<Routing>* observed_routes();

}  // namespace puna::ops
