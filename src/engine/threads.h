// How many threads to compute with.
#pragma once

namespace puna::engine {

/// Physical cores that this process may use: its CPU affinity, one per core, at most the control group's CPU quota.
int default_threads();

/// Sets LibTorch's thread count; 0 means default_threads(). Throws UsageError below 0 or above 1024.
void set_threads(int threads);

/// Threads for a step of so many floating-point operations: one when starting the others costs more than they bring,
/// else what set_threads() chose.
void use_threads_for(double flops);

}  // namespace puna::engine
