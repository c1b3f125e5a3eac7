#include "base/dtype.h"

#include "base/checked.h"
#include "base/error.h"

namespace puna {
namespace {

struct Row {
  DType dtype;
  DTypeInfo info;
};

constexpr Row kRows[] = {
    {DType::F64, {"F64", 1, 8}},       {DType::F32, {"F32", 1, 4}},        {DType::F16, {"F16", 1, 2}},
    {DType::BF16, {"BF16", 1, 2}},     {DType::F8E4M3, {"F8_E4M3", 1, 1}}, {DType::F8E5M2, {"F8_E5M2", 1, 1}},
    {DType::I64, {"I64", 1, 8}},       {DType::I32, {"I32", 1, 4}},        {DType::I16, {"I16", 1, 2}},
    {DType::I8, {"I8", 1, 1}},         {DType::U64, {"U64", 1, 8}},        {DType::U32, {"U32", 1, 4}},
    {DType::U16, {"U16", 1, 2}},       {DType::U8, {"U8", 1, 1}},          {DType::Bool, {"BOOL", 1, 1}},
    {DType::Q4_0, {"Q4_0", 32, 18}},   {DType::Q8_0, {"Q8_0", 32, 34}},    {DType::Q4_K, {"Q4_K", 256, 144}},
    {DType::Q5_K, {"Q5_K", 256, 176}}, {DType::Q6_K, {"Q6_K", 256, 210}},
};

}  // namespace

const DTypeInfo& dtype_info(DType dtype) {
  const auto index = static_cast<size_t>(dtype);
  PUNA_CHECK(index < std::size(kRows) && kRows[index].dtype == dtype, "dtype {} has no row", index);
  return kRows[index].info;
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const Row& row : kRows)
    if (row.info.name == name) return row.dtype;
  return std::nullopt;
}

std::optional<int64_t> dtype_bytes(DType dtype, int64_t elements) {
  const DTypeInfo& info = dtype_info(dtype);
  if (elements < 0 || elements % info.block_elements != 0) return std::nullopt;
  return checked_mul(elements / info.block_elements, info.block_bytes);
}

}  // namespace puna
