#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"
#include "ops/grad.h"

namespace puna::ops {
namespace {

constexpr int64_t kScoresInMemory = int64_t{4} << 20;  // up to here all scores are held at once
constexpr int64_t kWidenedKeys = int64_t{1} << 18;     // 16-bit keys, up to which they are copied to fp32
constexpr int64_t kMaskElements = int64_t{4} << 20;    // of one block of queries of the fused kernel

// All scores at once: cheaper than the fused kernel for few of them, and exact where softmax is (a token that sees
// only itself has gradients of exactly zero, which an optimiser that divides by their size needs).
at::Tensor attend_short(const at::Tensor& q_GRTK, const at::Tensor& k_SGK, const at::Tensor& v_SGK) {
  const int64_t G = q_GRTK.size(0), R = q_GRTK.size(1), T = q_GRTK.size(2), K = q_GRTK.size(3), S = k_SGK.size(0);
  // Scores are never rounded to 16 bits; nor does oneDNN then compile a kernel for each new number of keys.
  const at::ScalarType dtype = q_GRTK.scalar_type();
  if (at::isReducedFloatingType(dtype))
    return attend_short(q_GRTK.to(at::kFloat), k_SGK.to(at::kFloat), v_SGK.to(at::kFloat)).to(dtype);
  const double scale = 1 / std::sqrt(static_cast<double>(K));
  at::Tensor scores = at::bmm(q_GRTK.reshape({G, R * T, K}), k_SGK.permute({1, 2, 0})).view({G, R, T, S});
  scores = recording() ? scores * scale : scores.mul_(scale);
  if (T > 1) {
    const auto options = scores.options().requires_grad(false);
    const at::Tensor hidden = at::full({T, S}, -std::numeric_limits<double>::infinity(), options).triu_(S - T + 1);
    scores = recording() ? scores + hidden : scores.add_(hidden);
  }
  const at::Tensor shares = at::softmax(scores, -1).view({G, R * T, S});
  return at::bmm(shares, v_SGK.permute({1, 0, 2})).view({G, R, T, K});
}

// Key heads are the fused kernel's batch; their query heads share the key by a stride of zero.
at::Tensor attend_long(const at::Tensor& q_GRTK, const at::Tensor& k_SGK, const at::Tensor& v_SGK) {
  const int64_t G = q_GRTK.size(0), R = q_GRTK.size(1), T = q_GRTK.size(2), K = q_GRTK.size(3), S = k_SGK.size(0);
  const at::Tensor k_GRSK = k_SGK.permute({1, 0, 2}).unsqueeze(1).expand({G, R, S, K});
  const at::Tensor v_GRSK = v_SGK.permute({1, 0, 2}).unsqueeze(1).expand({G, R, S, K});
  if (T == S) return at::scaled_dot_product_attention(q_GRTK, k_GRSK, v_GRSK, {}, 0.0, /*is_causal=*/true);
  std::vector<at::Tensor> blocks;
  const int64_t block = std::clamp(kMaskElements / S, int64_t{1}, T);
  for (int64_t begin = 0; begin < T; begin += block) {
    const int64_t rows = std::min(block, T - begin);
    const int64_t visible = S - T + begin + rows;  // up to the block's last query
    const auto options = q_GRTK.options().dtype(at::kBool).requires_grad(false);
    blocks.push_back(at::scaled_dot_product_attention(q_GRTK.narrow(2, begin, rows), k_GRSK.narrow(2, 0, visible),
                                                      v_GRSK.narrow(2, 0, visible),
                                                      at::ones({rows, visible}, options).tril_(visible - rows)));
  }
  return blocks.size() == 1 ? blocks[0] : at::cat(blocks, 2);
}

}  // namespace

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t T = q.size(0), H = q.size(1), K = q.size(2), S = k.size(0), G = k.size(1);
  PUNA_CHECK(H % G == 0 && T > 0 && T <= S && k.size(2) == K && v.sizes() == k.sizes(),
             "attention: {} queries of {} heads of {}, {} keys of {} heads of {}", T, H, K, S, G, k.size(2));
  const at::Tensor q_GRTK = q.view({T, G, H / G, K}).permute({1, 2, 0, 3});
  const bool few_scores = T == 1 || T * S <= kScoresInMemory / H;
  const bool few_keys = !at::isReducedFloatingType(k.scalar_type()) || k.numel() <= kWidenedKeys;
  const at::Tensor out_GRTK = few_scores && few_keys ? attend_short(q_GRTK, k, v) : attend_long(q_GRTK, k, v);
  return out_GRTK.permute({2, 0, 1, 3}).reshape({T, H * K});
}

}  // namespace puna::ops
