// Logging to standard error through spdlog; standard output belongs to results.
#pragma once

#include <spdlog/spdlog.h>

namespace puna {

/// Sets the pattern, the stderr sink and the level from PUNA_LOG; called once by main. Throws Error for an unknown
/// level.
void init_logging();

}  // namespace puna
