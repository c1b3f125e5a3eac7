#include "base/memory.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <initializer_list>
#include <limits>
#include <sstream>
#include <string_view>

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

// The sum of some of the fields ("active_file 4096") of a memory.stat.
int64_t read_fields(const std::string& path, std::initializer_list<std::string_view> keys) {
  std::ifstream in(path);
  std::string key;
  int64_t value, sum = 0;
  while (in >> key >> value)
    if (std::ranges::find(keys, key) != keys.end()) sum += value;
  return sum;
}

// This process's v2 group.
std::string own_cgroup() {
  std::ifstream in("/proc/self/cgroup");
  std::string line, group;
  while (std::getline(in, line))
    if (line.rfind("0::", 0) == 0) group = line.substr(3);
  return group;
}

}  // namespace

int64_t cgroup_memory_left(const std::string& root, std::string group) {
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  int64_t left = kNone;
  const auto consider = [&](int64_t limit, int64_t used, int64_t cache) {
    if (limit != kNone) left = std::min(left, limit - std::max<int64_t>(used - cache, 0));
  };
  if (group == "/") group.clear();
  for (;; group.resize(group.rfind('/'))) {  // every level may limit
    const std::string base = root + group;
    consider(read_number(base + "/memory.max", kNone), read_number(base + "/memory.current", 0),
             read_fields(base + "/memory.stat", {"active_file", "inactive_file"}));
    if (group.empty() || group.rfind('/') == std::string::npos) break;
  }
  const std::string v1 = root + "/memory";
  consider(read_number(v1 + "/memory.limit_in_bytes", kNone), read_number(v1 + "/memory.usage_in_bytes", 0),
           read_fields(v1 + "/memory.stat", {"total_active_file", "total_inactive_file"}));
  return std::max<int64_t>(left, 0);
}

int64_t available_memory_bytes() {
  return std::min(meminfo_available(), cgroup_memory_left("/sys/fs/cgroup", own_cgroup()));
}

int64_t resident_memory_bytes() {
  std::ifstream in("/proc/self/statm");
  int64_t total = 0, resident = 0;
  in >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

int64_t peak_resident_memory_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  return 0;
}

void reset_peak_resident_memory() { std::ofstream("/proc/self/clear_refs") << "5"; }

std::string format_bytes(int64_t bytes) {
  constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.{}f} {}", value, value < 100 ? 2 : 0, kUnits[unit]);
}

}  // namespace puna
