// The only place that touches environment variables; each one that Puna knows is a function here.
#pragma once

#include <optional>
#include <string>

namespace puna::env {

/// NO_COLOR is set and not empty (no-color.org).
bool no_color();

/// PUNA_LOG: trace, debug, info, warn, error or off; unset means warn.
std::optional<std::string> log_level();

/// The user's home directory, for history files; nullopt when HOME is not set.
std::optional<std::string> home();

/// Where programs keep state between runs: XDG_STATE_HOME when absolute, else ~/.local/state.
std::optional<std::string> state_home();

/// PUNA_DEMO_MODEL: the model to use when none is named, in place of the one that comes with Puna.
std::optional<std::string> demo_model();

/// PUNA_ISA: the instruction set of the quantised kernels, in place of the best that the CPU has (kernels/quantized).
std::optional<std::string> isa();

/// Sets how many compiled products LibTorch keeps, unless the user did: at the start of the program, before it makes
/// any. It would keep one for every number of rows that it has seen: gigabytes, where experts get other rows at every
/// step.
void limit_compiled_products();

}  // namespace puna::env
