// What stands beside the weights of a quantised model.
#pragma once

#include <cstdint>
#include <filesystem>

#include "arch/config.h"
#include "quant/plan.h"

namespace puna::quant {

/// Throws Error unless `needed` bytes are free where `dir` is.
void check_free_space(const std::filesystem::path& dir, int64_t needed);

/// model.safetensors.index.json, when the plan has several files.
void write_index(const std::filesystem::path& out, const Plan& plan);

/// config.json with the plan's quantization_config; config.dtype is that of the kept tensors.
void write_config(const std::filesystem::path& out, const arch::Llama4Config& config, const Plan& plan);

}  // namespace puna::quant
