#include "quant/output.h"

namespace puna::quant::internal {
std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

const char* part_of(const arch::ParamRow& row) {
  switch (row.kind) {
    case arch::ParamKind::kAttention:
      return "attention";
    case arch::ParamKind::kSharedExpert:
      return "shared_expert";
    case arch::ParamKind::kRoutedExperts:
      return "routed_experts";
    case arch::ParamKind::kDenseFfn:
      return "dense_ffn";
    case arch::ParamKind::kHead:
      return "head";
    case arch::ParamKind::kEmbedding:
      return "embedding";
    case arch::ParamKind::kVision:
      return "vision";
    case arch::ParamKind::kProjector:
      return "projector";
    default:
      return "other";
  }
}

}  // namespace puna::quant::internal
