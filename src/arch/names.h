// Under which names, and in which layout, each format stores a row of the parameter table. Data only: src/checkpoint
// reads the tensors and puts them together as described here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "arch/config.h"
#include "arch/parameters.h"

namespace puna::arch {

enum class NameFormat {
  kHuggingFace,         // routed experts fused: one tensor per row, in the row's own layout
  kHuggingFaceUnfused,  // routed experts as linears of their own: compressed-tensors, one set per expert
  kMeta,                // consolidated.NN.pth, each file holding one share of the split dimension
  kGguf,                // text only
};

/// One stored tensor, or a slice of one, that makes up (part of) a row. To get the part:
///  1. per file, if `merged_experts` and the tensor has one dimension less than `shape`: view its first dimension as
///     [E, rest] (Meta's experts are stored [E*D, F]);
///  2. per file, keep of dimension 0 the shares [slice_begin, slice_end) out of slice_total equal ones;
///  3. join the files along `file_axis` (replicated when -1: take the first file's);
///  4. if `transposed`, swap the last two dimensions.
/// The part then fills row[expert] (expert >= 0) or the row itself; parts with the same expert stand side by side along
/// the last dimension, in the order given.
struct StoredPart {
  std::string name;
  std::vector<int64_t> shape;  // after step 3: whole over all files, before the transpose
  bool transposed = false;
  int expert = -1;
  int file_axis = -1;  // Meta only: the dimension of `shape` that is split over the files
  bool merged_experts = false;
  int64_t slice_begin = 0, slice_end = 1, slice_total = 1;
};

/// All the tensors that together are one row.
using StoredForm = std::vector<StoredPart>;

/// The ways in which `format` may store the row, the usual one first: the reader takes the first whose names all exist.
/// Empty when the format has no place for the row (vision in GGUF).
std::vector<StoredForm> stored_forms(const Llama4Config& config, const ParamRow& row, NameFormat format);

/// True for a stored tensor that belongs to no row yet is no mistake: rope tables, router statistics, saved module
/// state.
bool is_known_extra(std::string_view name, NameFormat format);

}  // namespace puna::arch
