// Values on the pickle interpreter's stack, and the globals that it knows.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/dtype.h"

namespace puna::io {

enum class PickleKind : uint8_t {
  kNone,
  kBool,
  kInt,
  kFloat,
  kText,
  kBytes,
  kTuple,
  kList,
  kDict,
  kGlobal,
  kStorage,
  kTensor,
  kOpaque
};

enum class GlobalKind : uint8_t {
  kOrderedDict,
  kRebuildTensorV2,
  kRebuildTensorV3,
  kRebuildParameter,
  kStorage,
  kDType,
  kOpaque
};

struct PickleGlobal {
  std::string_view module, name;
  GlobalKind kind;
  std::optional<DType> dtype;  // of storages (nullopt: untyped) and dtypes
};

/// nullptr for everything that is not needed to build tensors.
const PickleGlobal* find_pickle_global(std::string_view module, std::string_view name);

struct PickleValue {
  PickleKind kind = PickleKind::kNone;
  int64_t number = 0;                    // kBool, kInt; for kStorage and kTensor an index
  std::string_view text;                 // kText, kBytes
  const PickleGlobal* global = nullptr;  // kGlobal
  std::vector<PickleValue*> items;       // kTuple, kList; kDict: keys and values in turn
};

/// "dict", "int", ... for messages.
std::string_view pickle_kind_name(PickleKind kind);

}  // namespace puna::io
