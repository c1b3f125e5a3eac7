// Kernels of a training step: plain loops over pointers, serial, for the caller to spread over threads. Each sums in an
// order that sizes alone decide, so that results do not depend on the number of threads.
// One source (kernels.inl) is compiled per instruction set; training_kernels() gives the best that this CPU has.
// Matrices are row-major without gaps unless a stride says otherwise; all offsets are int64.
#pragma once

#include <cstdint>

namespace puna::kernels {

struct Bf16 {
  uint16_t bits;
};

/// What values stored as S are computed in.
template <typename S>
struct WideOf {
  using Type = float;
};
template <>
struct WideOf<double> {
  using Type = double;
};
template <typename S>
using Wide = typename WideOf<S>::Type;

/// Running softmax sums of rows of logits that come block by block; sum 0: nothing yet. fp64 whatever the logits are.
struct LossSums {
  double* highest;       // [rows]
  double* sum;           // [rows] of exp(l - highest)
  double* weighted;      // [rows] of exp(l - highest) (l - highest)
  double* target_logit;  // [rows] set when the target's column comes
};

/// What backward knows of each row: d loss / d l = p (share - entropy * l) + [target] target, p = exp(l - logsumexp).
template <typename W>
struct LossGradients {
  const W* logsumexp;  // [rows]
  const W* share;      // [rows]
  const W* entropy;    // [rows]
  const W* target;     // [rows]
};

/// Rows of queries or keys on their way into attention: rotated, then divided by their root mean square, then scaled.
template <typename S>
struct HeadRows {
  int64_t rows, heads, width;  // [rows, heads, width]
  const Wide<S>* rotations;    // [rows, width / 2, 2] cosine and sine; null: none
  const Wide<S>* factors;      // [rows]; null: none
  double eps;                  // of the norm; negative: none
};

/// Attention of a span of rows among themselves, causal, for the query heads that share one key head.
template <typename S>
struct AttentionProblem {
  const S *q, *k, *v;                // [T, H, K], [T, G, K] twice, at the span's first row
  int64_t rows;                      // of the span
  int64_t num_heads, num_key_heads;  // H, G
  int64_t width;                     // K
  int64_t key_head;                  // whose query heads are computed
  Wide<S>* scratch;                  // attention_scratch() values
};

/// Values of scratch for spans of at most `rows`.
int64_t attention_scratch(int64_t rows, int64_t width);

/// Where routed rows come from and go to; null tables: row n is token n.
struct RoutedRows {
  const int64_t* token_of_row;   // [N]
  const int64_t* choice_of_row;  // [N] t * A + a
  const int64_t* row_of_choice;  // [N] the inverse
  int64_t choices;               // A
};

/// S is float, double or Bf16.
template <typename S>
struct TrainingKernels {
  using W = Wide<S>;
  /// Adds a block of logits [rows, columns]; targets [rows] count from the block's first column, others are outside it.
  void (*loss_sums)(const W* logits, int64_t rows, int64_t columns, const int64_t* targets, const LossSums& sums);
  /// Overwrites the block of logits by their gradients.
  void (*loss_gradients)(W* logits, int64_t rows, int64_t columns, const int64_t* targets,
                         const LossGradients<W>& gradients);
  /// y = x * scale * weight, scale = rsqrt(mean(x^2) + eps) [rows] kept for backward.
  void (*norm)(const S* x, const S* weight, int64_t rows, int64_t width, double eps, S* y, W* scales);
  /// dx, and the weight's gradient of these rows in `dweight` [width].
  void (*norm_backward)(const S* x, const S* weight, const W* scales, const S* dy, int64_t rows, int64_t width, S* dx,
                        W* dweight);
  /// y = silu(gate) * up. Row strides of gate and up.
  void (*swiglu)(const S* gate, const S* up, int64_t rows, int64_t width, int64_t stride, S* y);
  /// From dy [rows, width]: gradients with the strides of gate and up, and y again.
  void (*swiglu_backward)(const S* gate, const S* up, const S* dy, int64_t rows, int64_t width, int64_t stride,
                          S* dgate, S* dup, S* y);
  /// y and, with a norm, its scales [rows, heads].
  void (*prepare_heads)(const S* x, const HeadRows<S>& shape, S* y, W* scales);
  /// dx from dy; y and scales as prepare_heads gave them. Not for a norm and factors together.
  void (*prepare_heads_backward)(const S* dy, const S* y, const W* scales, const HeadRows<S>& shape, S* dx);
  /// out [T, H, K] at the span's first row.
  void (*attention)(const AttentionProblem<S>& problem, S* out);
  void (*attention_backward)(const AttentionProblem<S>& problem, const S* dout, S* dq, S* dk, S* dv);
  /// rows[n] = x[token] * scores[choice] for n from begin to end.
  void (*gather_scaled)(const S* x, const S* scores, const RoutedRows& routed, int64_t begin, int64_t end,
                        int64_t width, S* rows);
  /// rows[n] = x[token].
  void (*gather)(const S* x, const RoutedRows& routed, int64_t begin, int64_t end, int64_t width, S* rows);
  /// y[t] = sum over a of rows[row of (t, a)], in the order of the choices, for t from begin to end.
  void (*combine)(const S* rows, const RoutedRows& routed, int64_t begin, int64_t end, int64_t width, S* y);
  /// Backward of gather_scaled: dx[t] and dscores[t, a] from drows.
  void (*combine_scaled)(const S* drows, const S* x, const S* scores, const RoutedRows& routed, int64_t begin,
                         int64_t end, int64_t width, S* dx, S* dscores);
};

template <typename S>
const TrainingKernels<S>& training_kernels();

}  // namespace puna::kernels
