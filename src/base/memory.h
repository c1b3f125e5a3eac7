// Memory figures of this machine and process, control-group limits included.
#pragma once

#include <cstdint>
#include <string>

namespace puna {

/// Bytes this process can still use without swapping: the least of /proc/meminfo's MemAvailable and what is left of the
/// control group's limit (v2 and v1).
int64_t available_memory_bytes();

/// What is left of the memory limits of `group` ("/a/b") and the groups above it, in the control-group file systems at
/// `root` (normally /sys/fs/cgroup). Page cache counts as free: the kernel gives it up. INT64_MAX without any limit.
int64_t cgroup_memory_left(const std::string& root, std::string group);

/// Resident set of this process in bytes (/proc/self/statm).
int64_t resident_memory_bytes();

/// The most that the resident set has been since the process began, or since reset_peak_resident_memory() (VmHWM).
int64_t peak_resident_memory_bytes();
void reset_peak_resident_memory();

/// "1.50 GiB", "312 MiB", "17 B".
std::string format_bytes(int64_t bytes);

}  // namespace puna
