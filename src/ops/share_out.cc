#include "ops/share_out.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

#ifndef INTRA_OP_PARALLEL
#error "compiled without OpenMP, at::parallel_for would be a plain loop"
#endif

namespace puna::ops {

void share_out(int64_t count, const std::function<void(int64_t)>& work) {
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), count);
  std::atomic<int64_t> next = 0;
  const auto loop = [&](int64_t, int64_t) {
    for (int64_t i; (i = next++) < count;) work(i);
  };
  if (threads <= 1 || at::in_parallel_region()) {
    loop(0, 1);
  } else {
    at::parallel_for(0, threads, 1, loop);
  }
}

}  // namespace puna::ops
