#include "ops/linear_loss.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/error.h"
#include "kernels/training/kernels.h"
#include "ops/loss.h"

namespace puna::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kMostRows = 8192;                // of one block: enough for full-speed products
constexpr int64_t kWideBytes = int64_t{32} << 20;  // of a block's rows, and of its columns, widened
constexpr int64_t kGrain = 8;                      // rows a thread takes at least

at::ScalarType wide_type(const at::Tensor& x) { return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

// Products are of widened blocks: logits are then not rounded to 16 bits, nor is a kernel compiled for each new number
// of targets.
at::Tensor widened(const at::Tensor& x) { return x.to(wide_type(x)); }

// Blocks of the [T, V] logits.
struct Blocks {
  int64_t rows, columns;
};

Blocks blocks_of(int64_t T, int64_t V, const at::Tensor& x, int64_t buffer_bytes) {
  const int64_t bytes = x.scalar_type() == at::kDouble ? 8 : 4, D = std::max<int64_t>(x.size(1), 1);
  const int64_t elements = std::max<int64_t>(buffer_bytes / bytes, 1);
  if (elements / V >= T) return {std::max<int64_t>(T, 1), V};
  const int64_t most = std::max<int64_t>(kWideBytes / (bytes * D), 256);
  const int64_t rows = std::clamp<int64_t>(T, 1, std::min(kMostRows, most));
  return {rows, std::clamp<int64_t>(elements / rows, 1, std::min(V, most))};
}

// Logits of a block: sum of xs[i] ws[i]^T, one product for the head and one for each adapter.
at::Tensor logits_of(const variable_list& xs, const variable_list& ws, int64_t row, int64_t rows, int64_t column,
                     int64_t columns) {
  at::Tensor logits;
  for (size_t i = 0; i < xs.size(); ++i) {
    const at::Tensor x = widened(xs[i].narrow(0, row, rows)), w = widened(ws[i].narrow(0, column, columns)).t();
    if (i == 0) {
      logits = at::mm(x, w);
    } else {
      logits.addmm_(x, w);
    }
  }
  return logits;
}

template <typename T>
void add_block(const at::Tensor& logits, const int64_t* targets, int64_t row, const at::Tensor& sums) {
  const int64_t columns = logits.size(1), all = sums.size(1);
  const T* data = logits.const_data_ptr<T>();
  double* s = sums.mutable_data_ptr<double>() + row;
  at::parallel_for(0, logits.size(0), kGrain, [&](int64_t begin, int64_t end) {
    const kernels::LossSums part = {s + begin, s + all + begin, s + 2 * all + begin, s + 3 * all + begin};
    kernels::training_kernels<T>().loss_sums(data + begin * columns, end - begin, columns, targets + begin, part);
  });
}

template <typename T>
void to_gradients(const at::Tensor& logits, const int64_t* targets, int64_t row, const at::Tensor& coefficients) {
  const int64_t columns = logits.size(1), all = coefficients.size(1);
  T* data = logits.mutable_data_ptr<T>();
  const T* c = coefficients.const_data_ptr<T>() + row;
  at::parallel_for(0, logits.size(0), kGrain, [&](int64_t begin, int64_t end) {
    const kernels::LossGradients<T> part = {c + begin, c + all + begin, c + 2 * all + begin, c + 3 * all + begin};
    kernels::training_kernels<T>().loss_gradients(data + begin * columns, end - begin, columns, targets + begin, part);
  });
}

struct KeptLogits : torch::CustomClassHolder {
  at::Tensor logits;  // [T, V] of the only block, until backward overwrites them
};

// Inputs: xs, then ws. Outputs: log-probabilities, entropies, logsumexps [T].
class LinearLogProbs : public torch::autograd::Function<LinearLogProbs> {
 public:
  static variable_list forward(AutogradContext* ctx, at::TensorList inputs, const at::Tensor& targets,
                               int64_t buffer_bytes) {
    const auto half = static_cast<int64_t>(inputs.size()) / 2;
    const variable_list xs(inputs.begin(), inputs.begin() + half), ws(inputs.begin() + half, inputs.end());
    const int64_t T = xs[0].size(0), V = ws[0].size(0);
    const Blocks blocks = blocks_of(T, V, xs[0], buffer_bytes);
    const at::Tensor sums = at::zeros({4, T}, at::kDouble);
    const auto kept = c10::make_intrusive<KeptLogits>();
    for (int64_t row = 0; row < T; row += blocks.rows) {
      const int64_t rows = std::min(blocks.rows, T - row);
      for (int64_t column = 0; column < V; column += blocks.columns) {
        const int64_t columns = std::min(blocks.columns, V - column);
        const at::Tensor logits = logits_of(xs, ws, row, rows, column, columns);
        const at::Tensor local = targets.narrow(0, row, rows) - column;
        const int64_t* t = local.const_data_ptr<int64_t>();
        logits.scalar_type() == at::kDouble ? add_block<double>(logits, t, row, sums)
                                            : add_block<float>(logits, t, row, sums);
        if (blocks.rows >= T && blocks.columns == V) kept->logits = logits;
      }
    }
    // Weighted sums are of exp(l - highest) (l - highest), so that the entropy is log(sum) - weighted / sum.
    const at::Tensor log_sum = sums[1].log(), logsumexps = sums[0] + log_sum;
    const at::Tensor entropies = log_sum - sums[2] / sums[1], log_probs = sums[3] - logsumexps;
    variable_list saved = inputs.vec();
    saved.insert(saved.end(), {targets, logsumexps, entropies});
    ctx->save_for_backward(saved);
    ctx->saved_data["buffer_bytes"] = buffer_bytes;
    ctx->saved_data["kept"] = c10::IValue::make_capsule(kept);
    const at::ScalarType wide = wide_type(xs[0]);
    return {log_probs.to(wide), entropies.to(wide), logsumexps.to(wide)};
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const auto half = static_cast<int64_t>(saved.size() - 3) / 2;
    const variable_list xs(saved.begin(), saved.begin() + half), ws(saved.begin() + half, saved.begin() + 2 * half);
    const at::Tensor &targets = saved[2 * half], &logsumexps = saved[2 * half + 1], &entropies = saved[2 * half + 2];
    const auto kept = c10::static_intrusive_pointer_cast<KeptLogits>(ctx->saved_data["kept"].toCapsule());
    const at::Tensor to_log_prob = gradients[0].to(at::kDouble), to_entropy = gradients[1].to(at::kDouble);
    const at::Tensor share = gradients[2].to(at::kDouble) - to_log_prob - to_entropy * (entropies - logsumexps);
    const at::Tensor coefficients = at::stack({logsumexps, share, to_entropy, to_log_prob}).to(wide_type(xs[0]));
    const Blocks blocks = blocks_of(xs[0].size(0), ws[0].size(0), xs[0], ctx->saved_data["buffer_bytes"].toInt());
    variable_list result(saved.size() - 3 + 2);
    for (int64_t i = 0; i < 2 * half; ++i)
      if (ctx->needs_input_grad(i)) result[i] = zeros_wide(saved[i], i < half);
    add_products(xs, ws, targets, coefficients, blocks, std::exchange(kept->logits, {}), result);
    for (int64_t i = 0; i < 2 * half; ++i)
      if (result[i].defined()) result[i] = result[i].to(saved[i].scalar_type());
    return result;
  }

 private:
  // Gradients of rows add up over blocks of columns, and are therefore wide.
  static at::Tensor zeros_wide(const at::Tensor& like, bool rows) {
    return at::zeros(like.sizes(), like.options().dtype(rows ? wide_type(like) : like.scalar_type()));
  }

  static void add_products(const variable_list& xs, const variable_list& ws, const at::Tensor& targets,
                           const at::Tensor& coefficients, const Blocks& blocks, const at::Tensor& kept,
                           const variable_list& result) {
    const int64_t T = xs[0].size(0), V = ws[0].size(0), half = static_cast<int64_t>(xs.size());
    for (int64_t column = 0; column < V; column += blocks.columns) {
      const int64_t columns = std::min(blocks.columns, V - column);
      variable_list sums(half);
      for (int64_t row = 0; row < T; row += blocks.rows) {
        const int64_t rows = std::min(blocks.rows, T - row);
        const at::Tensor g = kept.defined() ? kept : logits_of(xs, ws, row, rows, column, columns);
        const at::Tensor local = targets.narrow(0, row, rows) - column;
        const int64_t* t = local.const_data_ptr<int64_t>();
        g.scalar_type() == at::kDouble ? to_gradients<double>(g, t, row, coefficients)
                                       : to_gradients<float>(g, t, row, coefficients);
        for (int64_t i = 0; i < half; ++i) {
          if (result[i].defined()) result[i].narrow(0, row, rows).addmm_(g, widened(ws[i].narrow(0, column, columns)));
          if (!result[half + i].defined()) continue;
          const at::Tensor x = widened(xs[i].narrow(0, row, rows));
          const at::Tensor into = result[half + i].narrow(0, column, columns);
          if (rows == T && into.scalar_type() == g.scalar_type()) {
            at::mm_out(const_cast<at::Tensor&>(into), g.t(), x);
          } else {
            sums[i] = sums[i].defined() ? sums[i].addmm_(g.t(), x) : at::mm(g.t(), x);
          }
        }
      }
      for (int64_t i = 0; i < half; ++i)
        if (sums[i].defined()) result[half + i].narrow(0, column, columns).copy_(sums[i]);
    }
  }
};

}  // namespace

TargetStatistics linear_log_probs(const at::Tensor& x, const Weight& head, const at::Tensor& targets,
                                  bool want_entropies, int64_t buffer_bytes) {
  PUNA_CHECK(x.dim() == 2 && dense_of(head).dim() == 2 && x.size(1) == head.dense.size(1) && targets.dim() == 1 &&
                 targets.size(0) == x.size(0) && targets.scalar_type() == at::kLong,
             "linear log-probabilities: {} rows of {} columns, {} targets, a head of {}", x.size(0), x.size(-1),
             targets.size(0), head.dense.size(-1));
  const int64_t T = x.size(0), V = head.dense.size(0);
  const at::Tensor targets_T = targets.cpu(), rows = (targets_T != kIgnoredTarget).nonzero().squeeze(1);
  const at::Tensor used = targets_T.index_select(0, rows);
  if (used.numel() && (used.min().item<int64_t>() < 0 || used.max().item<int64_t>() >= V))
    fail("loss", "targets must be from 0 to {} or {}, not {} to {}", V - 1, kIgnoredTarget, used.min().item<int64_t>(),
         used.max().item<int64_t>());
  const bool all = used.numel() == T;
  const at::Tensor x_ND = all ? x : x.index_select(0, rows);
  variable_list inputs = {x_ND};
  for (const LowRank& adapter : head.adapters) inputs.push_back(at::mm(x_ND, adapter.a.t()) * adapter.scale);
  inputs.push_back(head.dense);
  for (const LowRank& adapter : head.adapters) inputs.push_back(adapter.b);
  const variable_list found = LinearLogProbs::apply(at::TensorList(inputs), used, buffer_bytes);
  const auto placed = [&](const at::Tensor& values) {
    return all ? values : at::index_copy(at::zeros({T}, values.options().requires_grad(false)), 0, rows, values);
  };
  return {placed(found[0]), want_entropies ? placed(found[1]) : at::Tensor(), placed(found[2])};
}

}  // namespace puna::ops
