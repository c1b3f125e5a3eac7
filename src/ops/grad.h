// Whether the ops must keep what a backward pass needs.
#pragma once

#include <c10/core/GradMode.h>

namespace puna::ops {

/// False: no gradient is recorded on this thread, so that an op may overwrite its own temporaries.
inline bool recording() { return c10::GradMode::is_enabled(); }

}  // namespace puna::ops
