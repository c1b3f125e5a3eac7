// A model to fewer bits, tensor by tensor: memory is that of a few matrices, an interrupted run goes on.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/model_source.h"
#include "quant/calibration.h"
#include "quant/rare.h"
#include "quant/report.h"
#include "quant/rules.h"

namespace puna::quant {

struct QuantiseOptions {
  Rules rules;
  std::optional<RareExperts> rare = {};  // measured first, without calibration; those whose error is too large are not
  int64_t threads = 1;
  int64_t max_shard_bytes = int64_t{2} << 30;  // as much work is lost when a run is killed
  const std::atomic<bool>* interrupt = nullptr;
  /// Importance of columns and error compensation; null: all columns alike. `calibration_id` tells its text and
  /// settings from others: a run that was stopped goes on only with the same.
  std::function<const InputStatistics*(const std::string& row, int64_t expert)> statistics;
  std::string calibration_id;
};

/// The type of matrices that are kept: the source's own where it is a 16- or 32-bit float, else BF16.
DType dense_dtype(const checkpoint::ModelSource& source);

/// Writes `out` as a Hugging Face directory in compressed-tensors layout: config.json, weights, what lies beside the
/// source, quantization_report.json. `source` is the model opened from `path`. Routed experts that are quantised become
/// linears of their own. A file is whole or absent; config.json comes last. Finished files of an earlier run on the
/// same model with the same rules are verified and kept. Throws Error before anything is written when `out` holds
/// another model or the disk has no room, and for weights that are not finite; Interrupted when asked to stop.
QuantiseReport quantise_model(const std::filesystem::path& path, const checkpoint::ModelSource& source,
                              const std::filesystem::path& out, const QuantiseOptions& options);

}  // namespace puna::quant
