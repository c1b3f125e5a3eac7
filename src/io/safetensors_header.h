// The JSON header of a safetensors file, read in one pass without building a document.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"

namespace puna::io {

/// One entry as the header states it; sizes and places are not yet checked against anything.
struct HeaderTensor {
  std::string name;
  DType dtype = DType::F32;
  std::vector<int64_t> shape;
  int64_t begin = 0, end = 0;  // bytes from the start of the data
};

/// Throws Error(`where`) on JSON that is not a header: duplicate keys, wrong types, missing or unknown fields, unknown
/// dtypes, numbers of 2^63 and over. `metadata` receives __metadata__.
std::vector<HeaderTensor> parse_safetensors_header(std::string_view json, std::string_view where,
                                                   std::map<std::string, std::string>& metadata);

}  // namespace puna::io
