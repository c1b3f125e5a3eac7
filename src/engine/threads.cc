#include "engine/threads.h"

#include <ATen/Parallel.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <fstream>
#include <set>
#include <string>
#include <utility>

#include "base/error.h"

namespace puna::engine {
namespace {

// About two milliseconds of one core. Steps of a tiny model are shorter than waking and joining threads for each op.
constexpr double kSingleThreadFlops = 2e7;

std::atomic<int> chosen_threads = 0;  // by set_threads(); 0: not called, LibTorch's own number stands

int read_int(const std::string& path, int otherwise) {
  std::ifstream in(path);
  int value;
  return in >> value ? value : otherwise;
}

int physical_cores() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 1;
  std::set<std::pair<int, int>> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    const std::string dir = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    cores.emplace(read_int(dir + "physical_package_id", 0), read_int(dir + "core_id", cpu));
  }
  return static_cast<int>(cores.size());
}

// Whole cores of the control group's quota (v2); a large number without one.
int quota_cores() {
  std::ifstream in("/sys/fs/cgroup/cpu.max");
  double quota, period;
  return in >> quota >> period && period > 0 ? static_cast<int>(std::ceil(quota / period)) : CPU_SETSIZE;
}

}  // namespace

int default_threads() { return std::max(1, std::min(physical_cores(), quota_cores())); }

void set_threads(int threads) {
  if (threads < 0 || threads > 1024)
    throw UsageError("--threads",
                     fmt::format("is {}; it must be from 1 to 1024, or 0 for all physical cores", threads));
  chosen_threads = threads > 0 ? threads : default_threads();
  at::set_num_threads(chosen_threads);
}

void use_threads_for(double flops) {
  if (chosen_threads == 0) return;
  const int wanted = flops < kSingleThreadFlops ? 1 : chosen_threads.load();
  if (at::get_num_threads() != wanted) at::set_num_threads(wanted);  // not free: it clears caches
}

}  // namespace puna::engine
