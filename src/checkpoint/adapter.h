// LoRA adapters as PEFT writes them (adapter_config.json, adapter_model.safetensors).
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <string>
#include <vector>

#include "arch/config.h"
#include "arch/parameters.h"

namespace puna::checkpoint {

/// One adapted parameter: y += scale * b (a x). A parameter may have several (gate and up halves), which add up.
/// Tensors have the file's type and are contiguous.
struct AdapterWeight {
  std::string parameter;  // Puna's parameter name
  at::Tensor a;           // [r, in]; routed experts [E, r, in]
  at::Tensor b;           // [out, r]; routed experts [E, out, r]
  double scale;           // alpha / r, or alpha / sqrt(r) with rslora
};

struct Adapter {
  std::string name;  // the directory's
  std::vector<AdapterWeight> weights;
};

/// Reads and checks an adapter against the model's table; every problem is in one Error. Targets may be attention,
/// dense and shared-expert linears, the router, and routed experts (fused through target_parameters, or one module per
/// expert).
Adapter open_adapter(const std::filesystem::path& dir, const arch::Llama4Config& config);

}  // namespace puna::checkpoint
