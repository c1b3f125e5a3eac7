#include "quant/format.h"

#include <vector>

#include <fmt/ranges.h>

#include "base/error.h"
#include "base/suggest.h"

namespace puna::quant {
namespace {

struct Named {
  const char* name;
  Format format;
};

constexpr Named kFormats[] = {{"keep", {}},
                              {"bf16", {Code::kBf16}},
                              {"int2-g32", {Code::kInt2, 32}},
                              {"int2-g128", {Code::kInt2, 128}},
                              {"int2-g32-asym", {Code::kInt2, 32, false}},
                              {"int2-g128-asym", {Code::kInt2, 128, false}},
                              {"int3-g32", {Code::kInt3, 32}},
                              {"int3-g128", {Code::kInt3, 128}},
                              {"int3-g32-asym", {Code::kInt3, 32, false}},
                              {"int3-g128-asym", {Code::kInt3, 128, false}},
                              {"int4-g32", {Code::kInt4, 32}},
                              {"int4-g128", {Code::kInt4, 128}},
                              {"int4-g32-asym", {Code::kInt4, 32, false}},
                              {"int4-g128-asym", {Code::kInt4, 128, false}},
                              {"int8", {Code::kInt8}},
                              {"int8-g32", {Code::kInt8, 32}},
                              {"int8-g128", {Code::kInt8, 128}},
                              {"fp8", {Code::kFp8}},
                              {"q8_0", {Code::kQ8_0, 32}},
                              {"q4_0", {Code::kQ4_0, 32}},
                              {"q4_k", {Code::kQ4_K, 256}}};

}  // namespace

std::string format_name(const Format& format) {
  for (const Named& named : kFormats)
    if (named.format == format) return named.name;
  throw InternalError("a format without a name");
}

Format parse_format(std::string_view name, std::string_view where) {
  std::vector<std::string> names;
  for (const Named& named : kFormats) {
    if (named.name == name) return named.format;
    names.emplace_back(named.name);
  }
  const std::string nearest = nearest_name(name, names);
  fail(where, "no format '{}'; {}", name.substr(0, 100),
       nearest.empty() ? fmt::format("there are {}", fmt::join(names, ", "))
                       : fmt::format("did you mean '{}'?", nearest));
}

}  // namespace puna::quant
