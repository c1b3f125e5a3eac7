// Where one sequence's keys and values lie in a paged cache, for one step.
#pragma once

#include <cstdint>
#include <span>

namespace puna::model {

/// Where the keys and values of one sequence of a step lie. The tables must stay as they are until the step is done.
struct PageTable {
  std::span<const int32_t> global;  // block i holds positions 16 i to 16 i + 15
  std::span<const int32_t> chunk;   // block i holds positions chunk_base + 16 i to chunk_base + 16 i + 15
  int64_t chunk_base = 0;           // a multiple of 16; all positions of the step lie in one attention chunk
  int64_t length = 0;               // positions before the step
  int64_t global_stored = 0;        // positions below are there already and are not written again
  int64_t chunk_stored = 0;
};

}  // namespace puna::model
