// What quantising did to every matrix of a model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "quant/rare.h"

namespace puna::quant {

/// What became of one matrix or tensor.
struct TensorReport {
  std::string name;  // module or tensor
  std::string part;  // "attention", "routed_experts", ...: the rules' key; "other" for what no rule is about
  std::string format;
  std::vector<int64_t> shape;
  int64_t source_bytes = 0;  // as 16- or 32-bit floats
  int64_t bytes = 0;
  double squared_error = 0;  // 0 for kept tensors
  double squared_norm = 0;   // of the quantised ones

  double relative_error() const;  // of the Frobenius norm
};

struct QuantiseReport {
  std::vector<TensorReport> tensors;
  std::vector<std::string> kept;   // rows that a rule would quantise, whose columns are no whole groups
  std::vector<std::string> wider;  // tensors that are Q8_0, as their columns are no whole blocks of the rule's format
  size_t shards_found = 0;         // finished by an earlier run
  std::optional<RareExperts> rare = {};

  Json json() const;
  /// A table by part, for people.
  std::string text() const;
};

Json reports_json(const std::vector<TensorReport>& reports);
/// The inverse, of a state file that was written by us and may have been changed since: throws Error naming `dir`.
std::vector<TensorReport> reports_from(const Json& json, const std::filesystem::path& dir);

}  // namespace puna::quant
