// A model to fewer bits, tensor by tensor: memory is that of a few matrices, an interrupted run goes on.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/model_source.h"
#include "quant/rules.h"

namespace puna::quant {

struct QuantiseOptions {
  Rules rules;
  int64_t threads = 1;
  int64_t max_shard_bytes = int64_t{2} << 30;  // as much work is lost when a run is killed
  const std::atomic<bool>* interrupt = nullptr;
};

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
  std::vector<std::string> kept;  // rows that a rule would quantise, whose columns are no whole groups
  size_t shards_found = 0;        // finished by an earlier run

  Json json() const;
  /// A table by part, for people.
  std::string text() const;
};

/// Writes `out` as a Hugging Face directory in compressed-tensors layout: config.json, weights, what lies beside the
/// source, quantization_report.json. `source` is the model opened from `path`. Routed experts that are quantised become
/// linears of their own. A file is whole or absent; config.json comes last. Finished files of an earlier run on the
/// same model with the same rules are verified and kept. Throws Error before anything is written when `out` holds
/// another model or the disk has no room, and for weights that are not finite; Interrupted when asked to stop.
QuantiseReport quantise_model(const std::filesystem::path& path, const checkpoint::ModelSource& source,
                              const std::filesystem::path& out, const QuantiseOptions& options);

}  // namespace puna::quant
