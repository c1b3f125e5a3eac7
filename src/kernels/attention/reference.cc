// Attention as its formula says, one row and head at a time: the oracle of the others.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/attention/kernels.h"
#include "kernels/attention/tile_access.h"
#include "kernels/quantized/rounding.h"

namespace puna::kernels {
namespace {

template <CacheType kType>
void attend(const AttentionProblem& p, const BlockTable& table, const ReferenceRow& r) {
  const CacheLayout layout = cache_layout(p.shape);
  const int64_t K = p.shape.width, kv_head = r.head * p.shape.kv_heads / p.query_heads;
  const auto tile_at = [&](std::byte* pool, int64_t at) {
    const int64_t slot = at - table.first_position;
    const int32_t block = table.blocks[slot / p.shape.block_size];
    return TileOf<kType>{pool + tile_offset(p.shape, layout, block, kv_head, slot), K, layout.padded_width};
  };
  const auto query = [&](int64_t d) {
    const int64_t at = r.row * p.query_stride + r.head * K + d;
    return p.queries_bf16 ? bf16_to_float(static_cast<const uint16_t*>(p.queries)[at])
                          : static_cast<const float*>(p.queries)[at];
  };
  constexpr double kLargest = std::numeric_limits<float>::max();
  std::vector<double> shares;
  double largest = -kLargest, sum = 0;
  for (int64_t at = r.lowest; at <= r.position; ++at) {
    const TileOf<kType> keys = tile_at(p.pool.keys, at);
    double dot = 0;
    for (int64_t d = 0; d < K; ++d) dot += double{query(d)} * keys.value(true, at % kTilePositions, d);
    shares.push_back(std::clamp(dot * p.scale, -kLargest, kLargest));
    largest = std::max(largest, shares.back());
  }
  for (double& share : shares) sum += share = std::exp(share - largest);
  for (int64_t d = 0; d < K; ++d) {
    double value = 0;
    for (int64_t at = r.lowest; at <= r.position; ++at) {
      value += shares[at - r.lowest] * tile_at(p.pool.values, at).value(false, at % kTilePositions, d);
    }
    const int64_t to = r.row * p.out_stride + r.head * K + d;
    const auto result = static_cast<float>(value / sum);
    if (p.out_bf16) {
      static_cast<uint16_t*>(p.out)[to] = bf16_from_float(result);
    } else {
      static_cast<float*>(p.out)[to] = result;
    }
  }
}

}  // namespace

void reference_attention(const AttentionProblem& p, const BlockTable& table, const ReferenceRow& row) {
  with_cache_type(p.shape.type, [&]<CacheType kType>() { attend<kType>(p, table, row); });
}

}  // namespace puna::kernels
