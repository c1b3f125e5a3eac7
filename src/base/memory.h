// Memory figures of this machine and process, control-group limits included.
#pragma once

#include <cstdint>
#include <string>

namespace puna {

/// Bytes this process can still use without swapping: the least of /proc/meminfo's MemAvailable and what is left of the
/// control group's limit (v2 and v1).
int64_t available_memory_bytes();

/// Resident set of this process in bytes (/proc/self/statm).
int64_t resident_memory_bytes();

/// "1.50 GiB", "312 MiB", "17 B".
std::string format_bytes(int64_t bytes);

}  // namespace puna
