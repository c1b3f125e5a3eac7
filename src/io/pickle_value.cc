#include "io/pickle_value.h"

#include <array>

namespace puna::io {
namespace {

constexpr PickleGlobal kGlobals[] = {
    {"collections", "OrderedDict", GlobalKind::kOrderedDict, {}},
    {"torch._utils", "_rebuild_tensor_v2", GlobalKind::kRebuildTensorV2, {}},
    {"torch._utils", "_rebuild_tensor_v3", GlobalKind::kRebuildTensorV3, {}},
    {"torch._utils", "_rebuild_parameter", GlobalKind::kRebuildParameter, {}},
    {"torch", "DoubleStorage", GlobalKind::kStorage, DType::F64},
    {"torch", "FloatStorage", GlobalKind::kStorage, DType::F32},
    {"torch", "HalfStorage", GlobalKind::kStorage, DType::F16},
    {"torch", "BFloat16Storage", GlobalKind::kStorage, DType::BF16},
    {"torch", "LongStorage", GlobalKind::kStorage, DType::I64},
    {"torch", "IntStorage", GlobalKind::kStorage, DType::I32},
    {"torch", "ShortStorage", GlobalKind::kStorage, DType::I16},
    {"torch", "CharStorage", GlobalKind::kStorage, DType::I8},
    {"torch", "ByteStorage", GlobalKind::kStorage, DType::U8},
    {"torch", "BoolStorage", GlobalKind::kStorage, DType::Bool},
    {"torch", "UntypedStorage", GlobalKind::kStorage, {}},
    {"torch.storage", "UntypedStorage", GlobalKind::kStorage, {}},
    {"torch", "float64", GlobalKind::kDType, DType::F64},
    {"torch", "float32", GlobalKind::kDType, DType::F32},
    {"torch", "float16", GlobalKind::kDType, DType::F16},
    {"torch", "bfloat16", GlobalKind::kDType, DType::BF16},
    {"torch", "float8_e4m3fn", GlobalKind::kDType, DType::F8E4M3},
    {"torch", "float8_e5m2", GlobalKind::kDType, DType::F8E5M2},
    {"torch", "int64", GlobalKind::kDType, DType::I64},
    {"torch", "int32", GlobalKind::kDType, DType::I32},
    {"torch", "int16", GlobalKind::kDType, DType::I16},
    {"torch", "int8", GlobalKind::kDType, DType::I8},
    {"torch", "uint64", GlobalKind::kDType, DType::U64},
    {"torch", "uint32", GlobalKind::kDType, DType::U32},
    {"torch", "uint16", GlobalKind::kDType, DType::U16},
    {"torch", "uint8", GlobalKind::kDType, DType::U8},
    {"torch", "bool", GlobalKind::kDType, DType::Bool},
    // Of Meta's "_extra_state" entries: taken note of, never built.
    {"_io", "BytesIO", GlobalKind::kOpaque, {}},
    {"_codecs", "encode", GlobalKind::kOpaque, {}},
};

constexpr std::array<std::string_view, 13> kKindNames = {
    "None", "bool", "int", "float", "str", "bytes", "tuple", "list", "dict", "global", "storage", "tensor", "object"};

}  // namespace

const PickleGlobal* find_pickle_global(std::string_view module, std::string_view name) {
  for (const PickleGlobal& global : kGlobals)
    if (global.module == module && global.name == name) return &global;
  return nullptr;
}

std::string_view pickle_kind_name(PickleKind kind) { return kKindNames[static_cast<size_t>(kind)]; }

}  // namespace puna::io
