// Work that threads take piece by piece, on LibTorch's pool.
#pragma once

#include <cstdint>
#include <functional>

namespace puna::ops {

/// Runs work(0), ..., work(count - 1), each once; returns when all are done. A thread takes the next when it is done
/// with one: equal shares would wait for the slowest. Within work of LibTorch's own threads, on the calling one alone.
void share_out(int64_t count, const std::function<void(int64_t)>& work);

}  // namespace puna::ops
