#include "checkpoint/scalar_type.h"

#include <array>
#include <utility>

namespace puna::checkpoint {
namespace {

using c10::ScalarType;

constexpr std::array kPairs = {
    std::pair(DType::F64, ScalarType::Double),
    std::pair(DType::F32, ScalarType::Float),
    std::pair(DType::F16, ScalarType::Half),
    std::pair(DType::BF16, ScalarType::BFloat16),
    std::pair(DType::F8E4M3, ScalarType::Float8_e4m3fn),
    std::pair(DType::F8E5M2, ScalarType::Float8_e5m2),
    std::pair(DType::I64, ScalarType::Long),
    std::pair(DType::I32, ScalarType::Int),
    std::pair(DType::I16, ScalarType::Short),
    std::pair(DType::I8, ScalarType::Char),
    std::pair(DType::U8, ScalarType::Byte),
    std::pair(DType::Bool, ScalarType::Bool),
};

}  // namespace

std::optional<ScalarType> scalar_type(DType dtype) {
  for (const auto& [stored, type] : kPairs)
    if (stored == dtype) return type;
  return std::nullopt;
}

std::optional<DType> dtype_of(ScalarType type) {
  for (const auto& [stored, tensor] : kPairs)
    if (tensor == type) return stored;
  return std::nullopt;
}

ScalarType default_compute_type(DType stored) {
  return stored == DType::F32 || stored == DType::F64 ? ScalarType::Float : ScalarType::BFloat16;
}

}  // namespace puna::checkpoint
