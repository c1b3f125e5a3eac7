// What `puna inspect` shows of a model, for people and for programs.
#pragma once

#include <string>
#include <string_view>

#include "arch/config.h"

namespace puna::arch {

/// Keys: "model", "config", "layers" (runs of equal layers), "parameters", "weight_bytes" (by storage),
/// "active_fraction", "contexts" (cache bytes in BF16 and FLOPs per token by length), "flops_formula", "notes".
OrderedJson describe_json(const Llama4Config& config, std::string_view model);

/// The same as an aligned listing that ends with a newline.
std::string describe_text(const Llama4Config& config, std::string_view model);

}  // namespace puna::arch
