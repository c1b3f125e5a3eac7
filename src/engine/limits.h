// Limits of what one request may hold, without LibTorch's headers.
#pragma once

#include <cstddef>

namespace puna::engine {

/// Images that one prompt may hold (the number the released models were trained with).
inline constexpr size_t kMaxImages = 48;

}  // namespace puna::engine
