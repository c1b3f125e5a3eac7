// Work on several threads, without LibTorch.
#pragma once

#include <cstdint>
#include <functional>

namespace puna {

/// Runs work(0), ..., work(count - 1), each once, on up to `threads` threads, this one among them. The first exception
/// is rethrown when all have stopped; work that had not begun by then is left out.
void parallel_for(int64_t count, int64_t threads, const std::function<void(int64_t)>& work);

}  // namespace puna
