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

/// Selection is by raw logit [T, E]. Scores are the sigmoid of the selected logits, or their share of the softmax over
/// all E, computed in fp32; no renormalisation over the selected.
Routing route(const at::Tensor& logits, int64_t experts_per_token, RouterScore score);

/// x [T, D] -> [N, D] in sorted order.
at::Tensor gather_rows(const at::Tensor& x, const Routing& routing);

/// Scores in sorted order [N, 1].
at::Tensor gather_scores(const Routing& routing);

/// [N, D] in sorted order -> [T, D]: sum over each token's experts, always in the order of its choices.
at::Tensor combine_rows(const at::Tensor& rows, const Routing& routing);

}  // namespace puna::ops
