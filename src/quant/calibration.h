// What a text's tokens bring to the inputs of each matrix: which columns matter, and how they go together.
#pragma once

#include <ATen/ATen.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "arch/parameters.h"
#include "engine/loaded_model.h"
#include "quant/rules.h"

namespace puna::quant {

/// Of the inputs of one matrix [out, in], over the tokens that reach it.
struct InputStatistics {
  int64_t tokens = 0;
  std::vector<float> importance;  // [in] mean square of each column
  at::Tensor factor;              // [in, in] FP32, see below; undefined: too wide for the memory
};

struct CalibrationOptions {
  int64_t context = 2048;     // tokens per window
  int64_t gram_bytes = 0;     // for [in, in] matrices of inputs at a time; 0: half of the memory that is available
  int64_t few_tokens = 256;   // experts that fewer reach are named in warnings()
  bool with_products = true;  // false: importance alone, without `factor`
  const std::atomic<bool>* interrupt = nullptr;
};

/// The rows of text layers that `rules` quantise: those that a text can calibrate, in table order.
std::vector<arch::ParamRow> rows_to_calibrate(const arch::Llama4Config& config, const Rules& rules);

/// Runs the model on the text as often as the memory for inputs' products demands, always for the next rows that are
/// asked for. Routed experts are measured by the tokens that reach them; those that few reach lean on what the layer's
/// other experts see. Throws Error when the model does not fit; Interrupted when asked to stop.
class Calibration {
 public:
  /// `rows`: those that will be asked for, in that order.
  Calibration(const engine::LoadOptions& model, std::string_view text, std::vector<arch::ParamRow> rows,
              const CalibrationOptions& options);
  ~Calibration();

  /// Of a row, or of one expert of a routed row. `factor` is the upper Cholesky factor U of the inverse of the damped
  /// mean product of inputs: U^T U = (X^T X / tokens + damping)^-1 (Frantar et al., arXiv 2210.17323, algorithm 1).
  const InputStatistics& of(const std::string& row, int64_t expert);

  /// Layers and experts that few of the text's tokens reach, so far as rows were asked for.
  std::vector<std::string> warnings() const;

 private:
  class Collector;
  struct Entry;
  void collect(size_t first);

  engine::LoadedModel model_;
  std::vector<engine::TokenId> tokens_;
  std::vector<arch::ParamRow> rows_;
  CalibrationOptions options_;
  std::unique_ptr<Collector> collector_;
  std::map<std::string, int64_t> few_;  // "layer 3 expert 5" -> tokens
  InputStatistics current_;
  std::string current_key_;
};

}  // namespace puna::quant
