#include "base/memory.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <sstream>

namespace puna {
namespace {

// The number in a one-line control-group file; `otherwise` when absent or "max".
int64_t read_number(const std::string& path, int64_t otherwise) {
  std::ifstream in(path);
  int64_t value;
  return in >> value ? value : otherwise;
}

int64_t meminfo_available() {
  std::ifstream in("/proc/meminfo");
  std::string line;
  while (std::getline(in, line)) {
    std::istringstream fields(line);
    std::string key;
    int64_t kib;
    if (fields >> key >> kib && key == "MemAvailable:") return kib * 1024;
  }
  return std::numeric_limits<int64_t>::max();
}

// Walks from this process's v2 group to the root; every level may limit.
int64_t cgroup_left() {
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  std::ifstream in("/proc/self/cgroup");
  std::string line, group;
  while (std::getline(in, line))
    if (line.rfind("0::", 0) == 0) group = line.substr(3);
  int64_t left = kNone;
  for (std::string dir = group == "/" ? "" : group;; dir.resize(dir.rfind('/'))) {
    const std::string base = "/sys/fs/cgroup" + dir;
    const int64_t limit = read_number(base + "/memory.max", kNone);
    if (limit != kNone) left = std::min(left, limit - read_number(base + "/memory.current", 0));
    if (dir.empty() || dir.rfind('/') == std::string::npos) break;
  }
  const int64_t v1 = read_number("/sys/fs/cgroup/memory/memory.limit_in_bytes", kNone);
  if (v1 != kNone) left = std::min(left, v1 - read_number("/sys/fs/cgroup/memory/memory.usage_in_bytes", 0));
  return std::max<int64_t>(left, 0);
}

}  // namespace

int64_t available_memory_bytes() { return std::min(meminfo_available(), cgroup_left()); }

int64_t resident_memory_bytes() {
  std::ifstream in("/proc/self/statm");
  int64_t total = 0, resident = 0;
  in >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

std::string format_bytes(int64_t bytes) {
  constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.{}f} {}", value, value < 100 ? 2 : 0, kUnits[unit]);
}

}  // namespace puna
