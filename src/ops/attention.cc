#include "ops/attention.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "ops/grad.h"

namespace puna::ops {
namespace {

constexpr int64_t kMaskElements = int64_t{4} << 20;  // of one block of queries

// One query: two small batched products, cheaper than the fused kernel and exact without a mask.
at::Tensor attend_one(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t H = q.size(1), K = q.size(2), G = k.size(1);
  const double scale = 1 / std::sqrt(static_cast<double>(K));
  at::Tensor scores_GRS = at::bmm(q.reshape({G, H / G, K}), k.permute({1, 2, 0}));
  scores_GRS = recording() ? scores_GRS * scale : scores_GRS.mul_(scale);
  return at::bmm(at::softmax(scores_GRS, -1), v.permute({1, 0, 2})).reshape({1, H * K});
}

}  // namespace

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t T = q.size(0), H = q.size(1), K = q.size(2), S = k.size(0), G = k.size(1);
  PUNA_CHECK(H % G == 0 && T > 0 && T <= S && k.size(2) == K && v.sizes() == k.sizes(),
             "attention: {} queries of {} heads of {}, {} keys of {} heads of {}", T, H, K, S, G, k.size(2));
  if (T == 1) return attend_one(q, k, v);

  // Key heads are the fused kernel's batch; their query heads share the key by a stride of zero.
  const at::Tensor q_GRTK = q.view({T, G, H / G, K}).permute({1, 2, 0, 3});
  const at::Tensor k_GRSK = k.permute({1, 0, 2}).unsqueeze(1).expand({G, H / G, S, K});
  const at::Tensor v_GRSK = v.permute({1, 0, 2}).unsqueeze(1).expand({G, H / G, S, K});
  std::vector<at::Tensor> blocks;
  if (T == S) {
    blocks.push_back(at::scaled_dot_product_attention(q_GRTK, k_GRSK, v_GRSK, {}, 0.0, /*is_causal=*/true));
  } else {
    const int64_t block = std::clamp(kMaskElements / S, int64_t{1}, T);
    for (int64_t begin = 0; begin < T; begin += block) {
      const int64_t rows = std::min(block, T - begin);
      const int64_t visible = S - T + begin + rows;  // up to the block's last query
      const at::Tensor mask =
          at::ones({rows, visible}, q.options().dtype(at::kBool).requires_grad(false)).tril_(visible - rows);
      blocks.push_back(at::scaled_dot_product_attention(q_GRTK.narrow(2, begin, rows), k_GRSK.narrow(2, 0, visible),
                                                        v_GRSK.narrow(2, 0, visible), mask));
    }
  }
  const at::Tensor out_GRTK = blocks.size() == 1 ? blocks[0] : at::cat(blocks, 2);
  return out_GRTK.permute({2, 0, 1, 3}).reshape({T, H * K});
}

}  // namespace puna::ops
