// The models of training runs, in Hugging Face layout.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace puna::train {

struct ExportOptions {
  std::filesystem::path run;                   // directory
  int64_t step = -1;                           // of a checkpoint; -1: the newest
  std::vector<std::filesystem::path> average;  // further runs; see below
  at::ScalarType dtype = at::kBFloat16;
  std::function<void(const std::string&)> on_note;  // is told of damaged checkpoints that are passed over
};

/// Writes the model of a checkpoint of a run to `out`; returns its step. With further runs of the same shape, which
/// began from one another or from the same, the weights are the mean of theirs and those of each one's newest
/// checkpoint (Wortsman et al. 2022, "Model soups"). Throws Error when there is no such checkpoint.
int64_t export_run(const ExportOptions& options, const std::filesystem::path& out);

}  // namespace puna::train
