#include "bench/explain.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "arch/parameters.h"
#include "kernels/attention/attention.h"
#include "kernels/quantized/isa.h"

namespace puna::bench {
namespace {

const char* part_name(arch::ParamKind kind) {
  switch (kind) {
    case arch::ParamKind::kEmbedding:
      return "embedding";
    case arch::ParamKind::kNorm:
      return "norms";
    case arch::ParamKind::kAttention:
      return "attention's projections";
    case arch::ParamKind::kRouter:
      return "routers";
    case arch::ParamKind::kRoutedExperts:
      return "routed experts";
    case arch::ParamKind::kSharedExpert:
      return "shared experts";
    case arch::ParamKind::kDenseFfn:
      return "dense feed-forward";
    case arch::ParamKind::kHead:
      return "head";
    case arch::ParamKind::kVision:
      return "vision model";
    case arch::ParamKind::kProjector:
      return "projector";
  }
  return "";
}

std::string format_name(const kernels::WeightFormat& format) {
  if (format.floats) return format.bits == 16 ? "BF16" : "FP8 E4M3, a scale each output";
  return fmt::format("INT{}, {}{}", format.bits,
                     format.channel_scales ? "a scale each output" : fmt::format("groups of {}", format.group),
                     format.zeros ? ", zero points" : "");
}

/// "INT4, groups of 32", or with how many matrices have which: "5 INT4, groups of 32; 3 INT2, groups of 32".
std::string format_names(std::span<const kernels::WeightFormat> formats) {
  std::vector<std::string> names;
  std::vector<kernels::WeightFormat> seen;
  for (const kernels::WeightFormat& format : formats) {
    if (std::ranges::find(seen, format) != seen.end()) continue;
    seen.push_back(format);
    names.push_back(fmt::format("{} {}", std::ranges::count(formats, format), format_name(format)));
  }
  return seen.size() == 1 ? format_name(seen[0]) : fmt::format("{}", fmt::join(names, "; "));
}

std::string dtype_name(at::ScalarType type) {
  return type == at::kBFloat16 ? "BF16" : type == at::kFloat ? "FP32" : c10::toString(type);
}

/// What an op does with the weight: as ops::linear(), ops::experts() and their like choose.
Explanation explain_weight(const arch::ParamRow& row, const ops::Weight& weight) {
  Explanation one{.part = part_name(row.kind), .matrices = 1, .form = {}, .kernel = {}, .reason = {}};
  const std::string_view isa = kernels::isa_name(kernels::chosen_isa());
  const bool routed = row.kind == arch::ParamKind::kRoutedExperts;
  if (weight.streamed || weight.packed) {
    const kernels::WeightShapes& shapes = weight.streamed ? weight.streamed->shapes : weight.packed->shapes;
    one.form = format_names(shapes.formats);
    const bool floats = shapes.floats();
    one.kernel = fmt::format("{} {} dots, {}", floats ? kernels::float_kernel_name(kernels::chosen_isa()) : isa,
                             floats ? "BF16" : "INT8", routed ? "rows grouped by expert" : "tiles of 16 outputs");
    one.reason = floats ? fmt::format("rows are BF16, sums FP32; {}", kernels::reason_of_isa())
                        : fmt::format("stored as integers, rows are rounded to INT8 in groups of {}; {}",
                                      kernels::kRowGroup, kernels::reason_of_isa());
    if (weight.streamed) one.reason += "; read from the file when needed";
    if (!weight.adapters.empty()) one.reason += "; adapters add LibTorch's products";
    return one;
  }
  one.form = dtype_name(weight.dense.scalar_type());
  if (row.kind == arch::ParamKind::kEmbedding) {
    one.kernel = "rows are copied", one.reason = "a token reads one row";
  } else if (row.kind == arch::ParamKind::kNorm) {
    one.kernel = "LibTorch, FP32 sums", one.reason = "few operations";
  } else {
    one.kernel = fmt::format("LibTorch products{}", routed ? ", one for each expert with rows" : "");
    one.reason = fmt::format("held as {} values", one.form);
    if (weight.dense.scalar_type() == at::kBFloat16 && kernels::cpu_has_amx_bf16()) one.reason += ", for AMX";
  }
  return one;
}

Explanation explain_cache(const model::PageFormat& format) {
  Explanation one{.part = "attention over the cache", .matrices = 0, .form = {}, .kernel = {}, .reason = {}};
  if (!format.type) {
    one.form = dtype_name(format.dtype), one.kernel = "LibTorch, keys and values gathered";
    one.reason = "no kernel for this type or device";
    return one;
  }
  one.form = *format.type == kernels::CacheType::Int8       ? "INT8"
             : *format.type == kernels::CacheType::Bfloat16 ? "BF16"
                                                            : "FP32";
  one.kernel = fmt::format("{} paged, split over positions",
                           kernels::attention_kernel_name(*format.type, kernels::chosen_isa()));
  one.reason = fmt::format("blocks of {} positions; {}", model::PagedCache::kPositions, kernels::reason_of_isa());
  return one;
}

}  // namespace

std::vector<Explanation> explain(const model::Model& model, const model::PageFormat& format) {
  std::vector<Explanation> all;
  for (const arch::ParamRow& row : arch::parameter_table(model.config())) {
    const Explanation one = explain_weight(row, model.weights().at(row.name));
    const auto same = std::ranges::find_if(
        all, [&](const Explanation& e) { return e.part == one.part && e.form == one.form && e.reason == one.reason; });
    if (same == all.end())
      all.push_back(one);
    else
      ++same->matrices;
  }
  all.push_back(explain_cache(format));
  return all;
}

}  // namespace puna::bench
