// src/parallel: ranks and what they tell each other. One process is the communicator of size 1.
#pragma once

#include <ATen/ATen.h>

#include <memory>

namespace puna::parallel {

/// Collectives of a group of ranks. All ranks call the same operations in the same order.
class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// Replaces `tensor` on every rank by the sum over the ranks, added in rank order.
  virtual void all_reduce_sum(at::Tensor& tensor) = 0;
};

/// A group of one: nothing to say.
std::unique_ptr<Comm> self_comm();

}  // namespace puna::parallel
