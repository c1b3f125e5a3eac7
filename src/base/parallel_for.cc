#include "base/parallel_for.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace puna {

void parallel_for(int64_t count, int64_t threads, const std::function<void(int64_t)>& work) {
  std::atomic<int64_t> next = 0;
  std::exception_ptr error;
  std::mutex mutex;
  const auto loop = [&] {
    try {
      for (int64_t i; (i = next++) < count;) work(i);
    } catch (...) {
      std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
      next = count;
    }
  };
  {
    std::vector<std::jthread> helpers;
    try {
      for (int64_t t = 1; t < std::min(threads, count); ++t) helpers.emplace_back(loop);
    } catch (const std::system_error&) {  // no more threads to be had: those that run do it all
    }
    loop();
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace puna
