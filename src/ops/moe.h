// Choosing experts for tokens, and grouping the chosen rows by expert (SPEC 3).
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace puna::ops {

enum class RouterScore { kSigmoid, kSoftmax };

/// Which experts each token goes to. `A` experts per token make N = T * A routed rows.
struct Routing {
  at::Tensor selected;           // [T, A] int64, best first; equal logits: the lower expert first
  at::Tensor scores;             // [T, A] in the logits' dtype
  std::vector<int64_t> offsets;  // [E + 1] rows of each expert in sorted order
  at::Tensor token_of_row;       // [N] int64: sorted row -> token
  at::Tensor choice_of_row;      // [N] int64: sorted row -> t * A + a
  at::Tensor row_of_choice;      // [N] int64: the inverse
  bool sorted;                   // choices are in expert order already: the three index tensors are undefined
};

/// Selection is by raw logit [T, E], or by sigmoid(logit) + selection_bias[e] where a bias [E] is given (ties: the
/// higher logit, then the lower expert). Scores never see the bias: the sigmoid of the selected logits, or their share
/// of the softmax over all E, computed in fp32 (fp64 logits: fp64); no renormalisation over the selected.
Routing route(const at::Tensor& logits, int64_t experts_per_token, RouterScore score,
              const at::Tensor& selection_bias = {});

/// E * sum_e f_e P_e (Switch Transformers, arXiv 2101.03961, eq. 4): f_e the share of the routed rows, P_e the mean
/// over tokens of the scores normalised over the experts, so that pushing all scores down gains nothing. Scalar.
at::Tensor load_balance_loss(const at::Tensor& logits, const Routing& routing, RouterScore score);

/// Mean over tokens of logsumexp(logits)^2 (ST-MoE, arXiv 2202.08906, eq. 5). Scalar.
at::Tensor router_z_loss(const at::Tensor& logits);

/// x [T, D] -> [N, D] in sorted order.
at::Tensor gather_rows(const at::Tensor& x, const Routing& routing);

/// Scores in sorted order [N, 1].
at::Tensor gather_scores(const Routing& routing);

/// [N, D] in sorted order -> [T, D]: sum over each token's experts, always in the order of its choices.
at::Tensor combine_rows(const at::Tensor& rows, const Routing& routing);

}  // namespace puna::ops
