// Row kernels of a training step: plain loops over pointers, serial, for the caller to spread over threads. Each sums
// in an order that sizes alone decide, so that results do not depend on the number of threads. One source (kernels.inl)
// is compiled per instruction set; training_kernels() gives the best that this CPU has.
#pragma once

#include <cstdint>

namespace puna::kernels {

/// Running softmax sums of rows of logits that come block by block; sum 0: nothing yet. fp64 whatever the logits are.
struct LossSums {
  double* highest;       // [rows]
  double* sum;           // [rows] of exp(l - highest)
  double* weighted;      // [rows] of exp(l - highest) (l - highest)
  double* target_logit;  // [rows] set when the target's column comes
};

/// What backward knows of each row: d loss / d l = p (share - entropy * l) + [target] target, p = exp(l - logsumexp).
template <typename T>
struct LossGradients {
  const T* logsumexp;  // [rows]
  const T* share;      // [rows]
  const T* entropy;    // [rows]
  const T* target;     // [rows]
};

/// T is float or double. Matrices are row-major without gaps unless a stride says otherwise.
template <typename T>
struct TrainingKernels {
  /// Adds a block of logits [rows, columns]; targets [rows] count from the block's first column, others are outside it.
  void (*loss_sums)(const T* logits, int64_t rows, int64_t columns, const int64_t* targets, const LossSums& sums);
  /// Overwrites the block of logits by their gradients.
  void (*loss_gradients)(T* logits, int64_t rows, int64_t columns, const int64_t* targets,
                         const LossGradients<T>& gradients);
};

template <typename T>
const TrainingKernels<T>& training_kernels();

}  // namespace puna::kernels
